"""Which code, parameters and data a result comes from.

A tracked file cannot name the commit that will contain it, so results carry a content id: a hash over the code,
notebooks and parameters of every stage behind them and the data's own hash, as DVC has just recorded them in dvc.lock.
"""

import hashlib
import json
import math
import os
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import yaml

from deconvnet import machine
from deconvnet.files import digest, write_whole
from deconvnet.params import Params
from deconvnet.paths import ROOT

# The stages that only look at results. They ask for the id, and their own entries are those of the run before.
REPORTING = ("evaluate", "windows", "decoder", "claims", "figures", "report")
EXTRA = ("ablations", "seeds")  # long runs with a dvc.yaml and a dvc.lock of their own, in a folder of that name
SOURCES = ("src", "notebooks", "conf", "dvc.yaml", "params.yaml")
PACKAGES = ("torch", "torchvision", "numpy", "opencv-contrib-python-headless", "pydensecrf2", "papermill", "dvc")


def locked(folder: Path) -> dict[str, dict]:
    """What DVC has recorded of each stage in the dvc.lock of a folder; nothing where it has not run."""
    lock = folder / "dvc.lock"
    return yaml.safe_load(lock.read_text())["stages"] if lock.is_file() else {}


def data_hash(stages: dict[str, dict]) -> str | None:
    """Of all files in data/voc; None before DVC has made them. Whoever reads them asks for it when their stage, `data`,
    has ended: then it stands in dvc.lock.
    """
    return next((out["md5"] for out in stages.get("data", {}).get("outs", []) if out["path"] == "data/voc"), None)


def content_id(root: Path = ROOT) -> str:
    """12 hexadecimal digits over what the stages so far were made from; "unlocked" where DVC has not run."""
    stages = locked(root)
    if not stages:
        return "unlocked"
    made = {out["path"] for stage in stages.values() for out in stage.get("outs", [])}
    sources = {}
    for name, stage in stages.items():
        if name not in REPORTING:
            code = {dep["path"]: dep["md5"] for dep in stage["deps"] if dep["path"] not in made}
            sources[name] = [code, stage.get("params", {})]
    sources["data files"] = [data_hash(stages)]
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()[:12]


def stale_reports(root: Path = ROOT) -> list[str]:
    """The tables, pages and figures that name another content id than today's: DVC makes none of them again where
    code behind them changed and its results did not.
    """
    reports, today = root / "reports", content_id(root)
    pages = [reports / "README.md", *sorted((reports / "tables").glob("*.md")), *sorted(reports.glob("figures/*.png"))]
    named = {p: set(re.findall(rb"content id ([0-9a-f]{12})", p.read_bytes())) for p in pages if p.is_file()}
    return [str(page.relative_to(root)) for page, ids in named.items() if ids - {today.encode()}]


def content_ids(root: Path = ROOT) -> dict[str, str]:
    """Each report → 12 hexadecimal digits over the code, parameters and data of the stages behind it, its own included.

    Unlike `content_id`, which a stage asks for while it runs, this is known when DVC has finished.
    """
    stages = locked(root)
    stages |= {f"{folder}/{name}": stage for folder in EXTRA for name, stage in locked(root / folder).items()}
    maker = {out["path"]: name for name, stage in stages.items() for out in stage["outs"]}

    def makers(path: str) -> set[str]:
        """The stage that made a path, or those that made what lies in it."""
        return {name for out, name in maker.items() if f"{path}/".startswith(f"{out}/") or out.startswith(f"{path}/")}

    @cache
    def behind(name: str) -> set[str]:
        before = set().union(*(makers(dep["path"]) for dep in stages[name]["deps"])) - {name}
        return {name}.union(*map(behind, before))

    def own(name: str) -> list:
        stage = stages[name]
        return [name, {d["path"]: d["md5"] for d in stage["deps"] if not makers(d["path"])}, stage.get("params", {})]

    ids = {name: digest(*map(own, sorted(behind(name))))[:12] for name in stages}
    in_git = {path for path in maker if re.match(r"reports/(?!notebooks/|site/)", path)}
    return {path: ids[maker[path]] for path in sorted(in_git)}


def experiment_id(settings: Params, root: Path = ROOT) -> str:
    """8 hexadecimal digits over every setting but the seeds of training, and the data of the run in the folder `root`:
    what runs must share to be compared.
    """

    def without_seeds(section):
        return {k: v for k, v in section.items() if k != "seed"} if "lr" in section else section

    sections = settings.model_dump(mode="json", exclude={"profile", "report"})
    return digest({name: without_seeds(section) for name, section in sections.items()}, data_hash(locked(root)))[:8]


def write_json(path, content) -> None:
    """JSON with sorted keys and rounded floats, so that git and DVC compare values and not noise; NaN becomes null."""

    def rounded(value):
        if isinstance(value, dict):
            return {key: rounded(v) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return [rounded(v) for v in value]
        if isinstance(value, float):
            return round(value, 5) if math.isfinite(value) else None
        return value

    write_whole(path, (json.dumps(rounded(content), indent=2, sort_keys=True) + "\n").encode())


def record_seconds(stage: str, seconds: float, root: Path = ROOT) -> None:
    """Notes how long a stage's notebook took; `record` adds the rest when DVC has finished."""
    path = root / "reports" / "provenance.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    write_json(path, known | {"seconds": known.get("seconds", {}) | {stage: round(seconds, 1)}})


def record(root: Path) -> None:
    """What only a finished run can say: reports/contents.json, which content each report is of; and
    reports/provenance.json, which git does not keep, with the same for its page.
    """
    write_json(root / "reports" / "contents.json", content_ids(root))
    path = root / "reports" / "provenance.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    dirty = printed("git", "status", "--porcelain", "--", *SOURCES)
    known |= {
        "content_id": content_id(root),
        "commit": printed("git", "rev-parse", "HEAD") or None,
        "dirty": [line[3:] for line in dirty.split("\n") if line],
        "device": device(),
        "processes": machine.processes(),
        "threads": machine.threads(),
        "precision": os.environ.get("DECONVNET_PRECISION", "32-true"),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }
    write_json(path, known)
    if (root / "reports" / "site").is_dir():
        (root / "reports" / "site" / "provenance.js").write_text(
            f"window.PROVENANCE = {json.dumps(known, sort_keys=True)};\n"
        )


def device() -> str:
    """The GPU, or the processor and its cores; without torch, which takes seconds to import."""
    gpus = printed("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    if gpus and os.environ.get("DECONVNET_DEVICE") != "cpu":
        return gpus.replace("\n", ", ")
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.split(":", 1)[1].strip() for line in info.split("\n") if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def printed(*command: str) -> str:
    """What a program prints; nothing if it is missing or fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.rstrip("\n")

"""Which code, parameters and data a result comes from.

A tracked file cannot name the commit that will contain it, so results carry a content id: a hash over the code,
notebooks and parameters of every stage behind them and the data's own hash, as DVC has just recorded them in dvc.lock.
"""

import hashlib
import json
import math
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import yaml

from deconvnet.params import Params
from deconvnet.paths import ROOT

# The stages that only look at results. They ask for the id, and their own entries are those of the run before.
REPORTING = ("evaluate", "windows", "decoder", "claims", "figures", "report")


SOURCES = ("src", "notebooks", "conf", "dvc.yaml", "params.yaml")
PACKAGES = ("torch", "torchvision", "numpy", "opencv-contrib-python-headless", "pydensecrf2", "papermill", "dvc")


def content_id(root: Path = ROOT) -> str:
    """12 hexadecimal digits over what the stages so far were made from; "unlocked" where DVC has not run."""
    lock = root / "dvc.lock"
    if not lock.is_file():
        return "unlocked"
    stages = yaml.safe_load(lock.read_text())["stages"]
    made = {out["path"] for stage in stages.values() for out in stage.get("outs", [])}
    sources = {}
    for name, stage in stages.items():
        if name not in REPORTING:
            code = {dep["path"]: dep["md5"] for dep in stage["deps"] if dep["path"] not in made}
            sources[name] = [code, stage.get("params", {})]
    sources["data files"] = [out["md5"] for out in stages["data"]["outs"] if out["path"] == "data/voc"]
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()[:12]


def experiment_id(settings: Params) -> str:
    """8 hexadecimal digits over every setting but the seeds of training: what runs must share to be compared."""

    def without_seeds(section):
        return {k: v for k, v in section.items() if k != "seed"} if "lr" in section else section

    sections = settings.model_dump(mode="json", exclude={"profile", "report"})
    text = json.dumps({name: without_seeds(section) for name, section in sections.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


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

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(content), indent=2, sort_keys=True) + "\n")


def record_seconds(stage: str, seconds: float, root: Path = ROOT) -> None:
    """Notes how long a stage's notebook took; `record` adds the rest when DVC has finished."""
    path = root / "reports" / "provenance.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    write_json(path, known | {"seconds": known.get("seconds", {}) | {stage: round(seconds, 1)}})


def record(root: Path) -> None:
    """reports/provenance.json of a finished run, which git does not keep, and the same for its page."""
    path = root / "reports" / "provenance.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    dirty = printed("git", "status", "--porcelain", "--", *SOURCES)
    known |= {
        "content_id": content_id(root),
        "commit": printed("git", "rev-parse", "HEAD") or None,
        "dirty": [line[3:] for line in dirty.split("\n") if line],
        "device": device(),
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

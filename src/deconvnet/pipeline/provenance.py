"""Which code, machine and versions a run is of: reports/provenance.json, which git does not keep.

A tracked file cannot name the commit that will contain it, so results carry the id of their experiment
(evaluation.experiment), and this file, written when DVC has finished, says the rest.
"""

import json
import os
import platform
import subprocess
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from deconvnet.config import machine
from deconvnet.config.paths import ROOT
from deconvnet.utils.files import write_json

SOURCES = ("src", "notebooks", "conf", "dvc.yaml", "params.yaml")
PACKAGES = ("torch", "torchvision", "numpy", "opencv-contrib-python-headless", "pydensecrf2", "papermill", "dvc")


def known(root: Path) -> dict:
    path = root / "reports" / "provenance.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def record_stage(stage: str, seconds: float, devices: set[str], root: Path = ROOT) -> None:
    """Notes how long a stage's notebook took, and on which devices its networks ran; `record` adds the rest."""
    record = known(root)
    for key, value in ("seconds", round(seconds, 1)), ("devices", device_names(devices)):
        record[key] = record.get(key, {}) | {stage: value}
    write_json(root / "reports" / "provenance.json", record)


def device_names(devices: set[str]) -> str:
    """GPUs ("cuda:0 NVIDIA H100") and the processor ("cpu", or no network at all) for a reader."""
    gpus = Counter(name.partition(" ")[2] for name in devices if name.startswith("cuda"))
    names = [f"{count} x {name}" if count > 1 else name for name, count in sorted(gpus.items())]
    return ", ".join(names + [processor()] * (not gpus or "cpu" in devices))


def record(root: Path) -> None:
    """Writes what only a finished run can say, for the report's page too."""
    commit, changed = state_in_git()
    before = known(root)
    content = before | {
        "experiment": json.loads((root / "reports" / "experiment.json").read_text(encoding="utf-8"))["id"],
        "commit": commit,
        "dirty": changed,
        "device": "; ".join(sorted({*before.get("devices", {}).values()})) or processor(),
        "processes": machine.processes(),
        "threads": machine.threads(),
        "precision": os.environ.get("DECONVNET_PRECISION", machine.PRECISIONS[0]),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }
    write_json(root / "reports" / "provenance.json", content)
    if (root / "reports" / "site").is_dir():
        script = f"window.PROVENANCE = {json.dumps(content, sort_keys=True)};\n"
        (root / "reports" / "site" / "provenance.js").write_text(script, encoding="utf-8")


def state_in_git(root: Path = ROOT) -> tuple[str | None, list[str] | None]:
    """The commit, and the files of SOURCES that differ from it; None for what git cannot say: without git, in an
    unpacked archive (which may lie in a repository of something else), or in another user's repository.
    """
    top = command_output("git", "rev-parse", "--show-toplevel", folder=root)
    if not top or Path(top).resolve() != root.resolve():
        return None, None
    commit = command_output("git", "rev-parse", "--verify", "HEAD", folder=root) or None
    changed = command_output("git", "status", "--porcelain", "--", *SOURCES, folder=root) or ""
    return commit, [line[3:] for line in changed.split("\n") if line]


def processor() -> str:
    """The processor and the cores that are ours, without torch, which takes seconds to import."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    names = [line.split(":", 1)[1].strip() for line in info.split("\n") if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def command_output(*command: str, folder: Path = ROOT) -> str:
    """What a program prints; nothing if it is missing or fails."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.rstrip("\n")

"""Which code, machine and versions a run is of: reports/provenance.json, which git does not keep.

A tracked file cannot name the commit that will contain it, so results carry the id of their experiment
(evaluation.experiment), and this file, written when DVC has finished, says the rest.
"""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from deconvnet.config import machine
from deconvnet.config.paths import ROOT
from deconvnet.utils.files import write_json

SOURCES = ("src", "notebooks", "conf", "dvc.yaml", "params.yaml")
PACKAGES = ("torch", "torchvision", "numpy", "opencv-contrib-python-headless", "pydensecrf2", "papermill", "dvc")


def known(root: Path) -> dict:
    path = root / "reports" / "provenance.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def record_seconds(stage: str, seconds: float, root: Path = ROOT) -> None:
    """Notes how long a stage's notebook took; `record` adds the rest."""
    record = known(root)
    seconds = record.get("seconds", {}) | {stage: round(seconds, 1)}
    write_json(root / "reports" / "provenance.json", record | {"seconds": seconds})


def record(root: Path) -> None:
    """Writes what only a finished run can say, for the report's page too."""
    dirty = command_output("git", "status", "--porcelain", "--", *SOURCES)
    content = known(root) | {
        "experiment": json.loads((root / "reports" / "experiment.json").read_text())["id"],
        "commit": command_output("git", "rev-parse", "HEAD") or None,
        "dirty": [line[3:] for line in dirty.split("\n") if line],
        "device": device_name(),
        "processes": machine.processes(),
        "threads": machine.threads(),
        "precision": os.environ.get("DECONVNET_PRECISION", machine.PRECISIONS[0]),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }
    write_json(root / "reports" / "provenance.json", content)
    if (root / "reports" / "site").is_dir():
        script = f"window.PROVENANCE = {json.dumps(content, sort_keys=True)};\n"
        (root / "reports" / "site" / "provenance.js").write_text(script)


def device_name() -> str:
    """The GPU, or the processor and its cores; without torch, which takes seconds to import."""
    gpus = command_output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    if gpus and os.environ.get("DECONVNET_DEVICE") != "cpu":
        return gpus.replace("\n", ", ")
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.split(":", 1)[1].strip() for line in info.split("\n") if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def command_output(*command: str) -> str:
    """What a program prints; nothing if it is missing or fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.rstrip("\n")

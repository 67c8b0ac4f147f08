"""How an interrupted stage resumes: a training from its last checkpoint, other stages from their finished images.

The state lies in checkpoints/<stage>/<name>/, no output of DVC (which deletes outputs before a stage runs). It is used
only with the settings, data and code that it was made with, and `pipeline.run_notebook` deletes it when the stage
has finished. Outside of DVC, in JupyterLab for instance, nothing is kept.
"""

import fcntl
import io
import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from deconvnet.config import machine
from deconvnet.config.paths import ROOT
from deconvnet.utils.files import fingerprint, write_atomic

CHECKPOINTS = ROOT / "checkpoints"
# Modules whose code cannot change a number: a resumed stage need not start anew, and dvc.yaml need not name them.
# What draws changes pictures: dvc.yaml names it where these are tracked files, and not for a notebook's own pictures.
HARMLESS = {
    "config.errors": "messages",
    "config.machine": "environment variables, which are no part of the experiment",
    "config.params": "reads params.yaml, whose values DVC compares itself",
    "config.paths": "names of files",
    "config.schema": "types of params.yaml",
    "pipeline.provenance": "records a run that has finished",
    "report": "draws and writes pages",
    "utils.resume": "finished work is the same work",
}

_lock = None  # held until this process ends


def is_harmless(module: str) -> bool:
    """Whether `module`, named below `deconvnet`, or the package it is in, is HARMLESS."""
    return module in HARMLESS or module.partition(".")[0] in HARMLESS


def stage_dir(stage: str) -> Path:
    return CHECKPOINTS / re.sub(r"\W+", "_", stage)


def clear() -> None:
    """Deletes the state of the running stage, which has finished."""
    if stage := os.environ.get("DVC_STAGE"):
        shutil.rmtree(stage_dir(stage), ignore_errors=True)


def lock_stage() -> None:
    """From here on only this process writes the running stage's results; waits for another one that does.

    If DVC is killed, its stage may go on for a moment while a second run begins. Of the processes that share a
    training, only rank 0 writes.
    """
    global _lock
    stage = os.environ.get("DVC_STAGE")
    if not stage or _lock or machine.rank():
        return
    path = stage_dir(stage).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    _lock = path.open("w", encoding="utf-8")
    try:
        fcntl.flock(_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Another process is still running {stage}: waiting until it ends.", file=sys.stderr)
        fcntl.flock(_lock, fcntl.LOCK_EX)


def resume_dir(name: str, inputs: Callable[[], dict[str, str]], outputs: Iterable[Path] = ()) -> Path | None:
    """The folder for the state of the work `name` of the running stage; None outside of a stage.

    `inputs` gives the fingerprints of what the work depends on, besides the code. If an interrupted run with the same
    inputs and code left the folder, it and the folders `outputs` keep their content; otherwise they are emptied.
    """
    outputs = list(outputs)
    stage = os.environ.get("DVC_STAGE")
    if not stage:
        _empty(outputs)
        return None
    lock_stage()
    folder = stage_dir(stage) / re.sub(r"\W+", "_", name)
    record, expected = folder / "inputs.json", inputs() | {"code": code_fingerprint()}
    known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
    if known != expected:
        if known:
            changed = ", ".join(key for key in expected if known.get(key) != expected[key])
            print(f"{name}: the interrupted run had other {changed}. Starting anew.", file=sys.stderr)
        _empty([folder, *outputs])
        write_atomic(record, json.dumps(expected, indent=2).encode())
    return folder


def _empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)


def code_fingerprint() -> str:
    """A hash over the modules of this package that the process has loaded and that can change a number."""
    loaded = {name.removeprefix("deconvnet."): m for name, m in sys.modules.items() if name.startswith("deconvnet.")}
    return fingerprint(
        {name: Path(m.__file__).read_text(encoding="utf-8") for name, m in loaded.items() if not is_harmless(name)}
    )


def save_checkpoint(path: Path, state: dict) -> None:
    """Writes tensors, numbers, text, lists and dicts of them. Raises OSError if there is no space."""
    import torch  # late: `pipeline.run_notebook` needs none

    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getbuffer())


def load_checkpoint(path: Path, device) -> dict | None:
    """What `save_checkpoint` wrote, without executing anything in it; None if it is absent or cannot be read."""
    import torch

    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        print(f"{path} cannot be read ({error}). Starting anew.", file=sys.stderr)
        return None

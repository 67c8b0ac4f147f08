"""What a killed stage had done, for its successor to go on from.

A training keeps its state, and a stage that goes image by image its finished files. What says so lies in
checkpoints/<stage>/, which is no output of DVC (it empties those before a stage runs). It counts only for the settings,
data and code that it was made with, and `deconvnet.run` removes it when the stage has ended well. Outside of DVC, in
JupyterLab for instance, nothing is kept.
"""

import fcntl
import io
import itertools
import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from deconvnet import machine
from deconvnet.files import digest, write_whole
from deconvnet.paths import ROOT

CHECKPOINTS = ROOT / "checkpoints"
HARMLESS = {
    "checkpoints",
    "errors",
    "figures",
    "files",
    "parallel",
    "plots",
    "provenance",
    "tables",
}  # modules that change no result

_claims = itertools.count(1)  # of this process: a stage makes the same ones in the same order each time it runs
_locks = {}  # held until this process ends


def folder_of(stage: str) -> Path:
    return CHECKPOINTS / re.sub(r"\W+", "_", stage)


def clear() -> None:
    """Forgets what the stage that runs has kept: it has ended."""
    if stage := os.environ.get("DVC_STAGE"):
        shutil.rmtree(folder_of(stage), ignore_errors=True)


def hold(part: str) -> None:
    """From here on this process alone is that part of its stage, its "runner" or its "kernel": another is waited for.

    What was killed may leave an orphan behind, for a second or as long as it works: it must not write any more. Of
    the processes that share a training rank 0 alone writes.
    """
    stage = os.environ.get("DVC_STAGE")
    if not stage or part in _locks or machine.rank():
        return
    path = folder_of(stage).with_suffix(f".{part}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _locks[part] = path.open("w")
    try:
        fcntl.flock(_locks[part], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Another process still works on {stage}: waiting until it ends.", file=sys.stderr)
        fcntl.flock(_locks[part], fcntl.LOCK_EX)


def claim(what: str, made_from: Callable[[], dict[str, str]], outputs: Iterable[Path] = ()) -> Path | None:
    """The folder for the next piece of work of this stage, or None if no stage runs.

    It still has its content, and the folders `outputs` theirs, if a killed run left them and was made from the same;
    else all of them are empty. A process of the same stage that still lives is waited for.
    """
    outputs = list(outputs)
    stage, number = os.environ.get("DVC_STAGE"), next(_claims)
    if not stage:
        _empty(outputs)
        return None
    hold("kernel")
    place = folder_of(stage) / f"{number}"
    record, wanted = place / "made_from.json", made_from() | {"code": code()}
    known = json.loads(record.read_text()) if record.is_file() else None
    if known != wanted:
        if known:
            other = ", ".join(key for key in wanted if known.get(key) != wanted[key])
            print(f"{what}: what an interrupted run left was made with other {other}. It starts anew.", file=sys.stderr)
        _empty([place, *outputs])
        write_whole(record, json.dumps(wanted, indent=2).encode())
    return place


def _empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)


def code() -> str:
    """A hash over the modules of this project that the process has loaded, but for those that change no result."""
    loaded = {name.rpartition(".")[2]: module for name, module in sys.modules.items() if name.startswith("deconvnet.")}
    sources = {name: Path(m.__file__).read_text() for name, m in loaded.items() if name not in HARMLESS}
    return digest(sources)


def save(path: Path, state: dict) -> None:
    """Tensors, numbers, text, lists and dicts of them. Raises OSError if there is no room."""
    import torch  # late: `deconvnet.run` needs none

    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(path, buffer.getbuffer())


def load(path: Path, device) -> dict | None:
    """What `save` wrote, nothing in it being executed; None if there is none, or it cannot be read."""
    import torch

    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        print(f"{path} cannot be read ({error}): it starts anew.", file=sys.stderr)
        return None

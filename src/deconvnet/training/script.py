"""One of several processes that share a training: torchrun, which `launch.train` runs, starts this script in each.

    python -m deconvnet.training.script NAME STATE.pt

All processes build the same recipe by its name, load the weights of STATE.pt and train them; rank 0 writes the new
weights and the rows of the curve to STATE.pt.
"""

import ctypes
import signal
import sys
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing.errors import record

from deconvnet.config import machine, params
from deconvnet.training import launch, recipes
from deconvnet.utils import resume


@record  # an exception is written to a file, from which `launch.shared_error` has it
def main(name: str, state: str) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: this process ends with the one that started it
    torch.set_num_threads(machine.threads())
    recipe, path = recipes.by_name(name, params.load()), Path(state)
    recipe.net.load_state_dict(resume.load_checkpoint(path, "cpu")["net"])
    curve = launch.train_here(recipe)
    if machine.rank() == 0:
        rows = [{k: v for k, v in row.items() if v == v} for row in curve.to_dict("records")]
        resume.save_checkpoint(path, {"net": recipe.net.state_dict(), "rows": rows})


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception:  # shown once, by the process that started this one
        sys.exit(1)

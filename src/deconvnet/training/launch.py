"""Trains a recipe: in this process, or by several that share each batch (DECONVNET_PROCESSES).

`train` runs torchrun in this process, a notebook's kernel, and torchrun starts the others; each runs SCRIPT. On several
machines, DECONVNET_TORCHRUN holds torchrun's options for a rendezvous, and the command that is printed is run on the
other machines by hand: docs/scaling.md.
"""

import os
import shlex
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

from deconvnet.config import machine
from deconvnet.config.errors import MEMORY_ADVICE, UserError
from deconvnet.config.paths import ROOT
from deconvnet.config.schema import Solver
from deconvnet.training import loop
from deconvnet.training.curve import live_curve
from deconvnet.training.recipes import Recipe
from deconvnet.utils import resume

SCRIPT = "deconvnet.training.script"


def train(recipe: Recipe) -> pd.DataFrame:
    """Trains `recipe.net` in place and writes the curve for DVC; returns the curve.

    Raises as `loop.train` does. Of several processes, UserError if one was killed, RuntimeError for any other error.
    """
    count = num_processes(recipe.solver)
    curve = train_here(recipe) if count == 1 else train_by_processes(recipe, count)
    return curve.assign(step=curve["step"] + recipe.first_step) if len(curve) else curve


def train_here(recipe: Recipe) -> pd.DataFrame:
    """In this process, which may be one of several."""
    with live_curve(recipe.curve, recipe.first_step) as log:
        return loop.train(
            recipe.net,
            recipe.batches["train"],
            recipe.solver,
            name=recipe.name,
            validation=recipe.validation(),
            log=log,
        )


def num_processes(solver: Solver) -> int:
    """How many processes train: DECONVNET_PROCESSES, or 1 if a batch is not divided or nothing is trained."""
    count = machine.processes()
    if count == 1 or not solver.iterations:
        return 1
    if solver.micro_batches == 1:
        print("A batch of one micro-batch is trained by one process.", file=sys.stderr)
        return 1
    machine.check_micro_batches(solver.micro_batches, count)
    return count


def train_by_processes(recipe: Recipe, count: int) -> pd.DataFrame:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # late: most trainings do without
    from torch.distributed.run import parse_args, run

    options = machine.torchrun_options() or ["--standalone"]
    parent = resume.stage_dir(os.environ.get("DVC_STAGE", ""))  # in the project, which all machines see
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        state = Path(folder) / "state.pt"
        resume.save_checkpoint(state, {"net": recipe.net.state_dict()})
        script = ["-m", SCRIPT, recipe.name, str(state)]
        # Handlers of other signals would stay in this process. The terminal shows rank 0 alone.
        here = ["--signals-to-handle=SIGUSR2", "--local-ranks-filter=0", f"--log-dir={folder}"]
        arguments = parse_args([*options, *here, *script])
        nodes = int(arguments.nnodes.partition(":")[0])
        if count % nodes:
            raise UserError(f"DECONVNET_PROCESSES is {count}, which {nodes} machines cannot share evenly.")
        arguments.nproc_per_node = str(count // nodes)
        if nodes > 1:
            command = ["torchrun", *options, f"--nproc-per-node={count // nodes}", *script]
            print(f"On the other machines, in {ROOT}: {shlex.join(command)}", file=sys.stderr)
        try:
            run(arguments)
        except ChildFailedError as error:
            raise shared_error(error) from None
        result = resume.load_checkpoint(state, machine.device())
    recipe.net.to(machine.device(), memory_format=torch.channels_last).train().load_state_dict(result["net"])
    return pd.DataFrame(result["rows"])


def shared_error(error) -> Exception:
    """What `train` raises for torchrun's ChildFailedError: the first of the causes below that a process has."""
    _, first = error.get_first_failure()
    failures = [first, *error.failures.values()]
    texts = [f.message if isinstance(f.message, str) else f.message["message"] for f in failures]
    for text in texts:
        if text.startswith("UserError: "):
            return UserError(text.removeprefix("UserError: "))
    if killed := [failure for failure in failures if failure.exitcode < 0]:
        return UserError(
            f"One of the training processes was ended by {killed[0].signal_name()}, by hand or for lack of memory, and "
            "the others were ended too. Run the same command again: training resumes from the last checkpoint. "
            f"{MEMORY_ADVICE}"
        )
    traceback = first.message["extraInfo"]["py_callstack"] if isinstance(first.message, dict) else ""
    return RuntimeError(f"A training process ended early: {texts[0]}\n{traceback}")

"""Trains a recipe: in this process, or by several that share each batch (DECONVNET_PROCESSES).

`python -m deconvnet.training.script` is what they run, started by torchrun; a notebook's training cell starts torchrun
and reads the result. On several machines, DECONVNET_TORCHRUN holds torchrun's options for a rendezvous, and the command
that is printed is run on the other machines by hand: docs/scaling.md.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from deconvnet.config import machine
from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.config.schema import Solver
from deconvnet.training import loop
from deconvnet.training.curve import live_curve
from deconvnet.training.recipes import Recipe
from deconvnet.utils import resume

AGAIN = "Run the same command again: training resumes from the last checkpoint."


def train(recipe: Recipe) -> pd.DataFrame:
    """Trains `recipe.net` in place and writes the curve for DVC; returns the curve. Raises as `loop.train` does, and
    UserError if a process was killed.
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
    options = machine.torchrun_options() or ["--standalone"]
    nodes = next((int(o.partition("=")[2]) for o in options if o.startswith("--nnodes=")), 1)
    if count % nodes:
        raise UserError(f"DECONVNET_PROCESSES is {count}, which {nodes} machines cannot share evenly.")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.pt"
        command = [sys.executable, "-m", "torch.distributed.run", *options, f"--nproc-per-node={count // nodes}"]
        command += ["-m", "deconvnet.training.script", recipe.name, str(result)]
        if nodes > 1:
            print(f"On the other machines, in {ROOT}: {shlex.join(command)}", file=sys.stderr)
        environment = os.environ | {"OMP_NUM_THREADS": str(max(machine.threads() // (count // nodes), 1))}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(failure_message(done.stderr, count))
        state = resume.load_checkpoint(result, machine.device())
    recipe.net.load_state_dict(state["net"])
    return pd.DataFrame(state["rows"])


def failure_message(output: str, count: int) -> str:
    """What went wrong in a shared training, from what torchrun printed."""
    errors = [line.partition("UserError: ")[2] for line in output.split("\n") if "UserError: " in line]
    if errors:
        return errors[0]
    killed = [line for line in output.split("\n") if "Signal " in line and "received by PID" in line]
    reason = killed[0].strip() if killed else output[-2000:].strip()
    return f"One of {count} training processes ended early, and the others were ended. {reason} {AGAIN}"

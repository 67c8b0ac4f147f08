"""A training that several processes share (DECONVNET_PROCESSES): started with torchrun's launcher, ended together.

`deconvnet.run` starts itself again, once for each rank. Every rank runs the notebook; rank 0 alone writes what it shows
and what it makes. The others run it up to the end of the training, and what they show is thrown away.
"""

import json
import logging
import os
import sys
import tempfile
import time
import uuid
from pathlib import Path

from deconvnet import machine, params
from deconvnet.errors import UserError

# The notebooks that train, each with its section of params.yaml.
TRAININGS = {"boundaries": "boundaries", "backbone": "backbone", "train": "stage{stage}", "train_fcn": "fcn"}
LAUNCHER = "DECONVNET_LAUNCHER"  # its process, for its ranks to know
AGAIN = "Run the same command again: it goes on from the last checkpoint."


def number_for(notebook: str, parameters: dict) -> int:
    """How many processes run a notebook: DECONVNET_PROCESSES if it has something to share, else 1. Raises UserError."""
    count = machine.processes()
    if count == 1 or notebook not in TRAININGS:
        return 1
    solver = getattr(params.load(), TRAININGS[notebook].format(**parameters))
    if not solver.updates or getattr(solver, "source", "train") != "train":
        return 1
    if solver.accumulate == 1:
        print(f"{notebook}: a batch that runs as one part (accumulate) is trained by one process.", file=sys.stderr)
        return 1
    machine.check_share(solver.accumulate, count)
    return count


def launch(count: int) -> None:
    """Runs this program's command line as ranks 0 to `count` - 1; if one ends early, the others are ended too.

    Raises UserError if one was killed; one that failed has left its words, with which the program then ends.
    """
    # Late: torch takes seconds.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ[LAUNCHER] = str(os.getpid())
    logging.disable()  # of the launcher: what is wrong is said below, once
    with tempfile.TemporaryDirectory() as words:
        shown = DefaultLogsSpecs(words, redirects={rank: Std.ALL for rank in range(1, count)})  # what rank 0 prints
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=count, max_restarts=0, run_id=uuid.uuid4().hex,
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost", logs_specs=shown,
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)("-m", "deconvnet.run", *sys.argv[1:])
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
        except SignalException as signal:
            sys.exit(128 + signal.sigval)
        else:
            return
    if failure.error_file_data.get("timestamp"):  # of `leave_words`
        sys.exit(failure.message)
    how = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with status {failure.exitcode}"
    raise UserError(f"rank {rank} of {count}: It {how}, and the others were ended. {AGAIN}")


def leave_words(words: str) -> None:
    """Says for the launcher, if one waits, why this rank ends."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        Path(path).write_text(json.dumps({"message": words, "timestamp": int(time.time())}))


def let_others_end_first() -> None:
    """A rank fails too where another was killed: that one, and then rank 0, is the one to be heard."""
    if machine.world() > 1:
        time.sleep(3 + machine.rank())

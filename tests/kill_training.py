"""A tiny training that is killed again and again, and an undisturbed one: python kill_training.py SEED

Each child is a fork, which has torch loaded already. Most are killed after a random time, some while they write a
checkpoint. Prints as JSON the number of kills, from how many iterations it resumed, and whether both results are equal.
"""

import io
import json
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from deconvnet.config import schema
from deconvnet.images.batches import Batches
from deconvnet.training import loop
from deconvnet.utils import files, resume

SOLVER = schema.Solver(
    optimizer="adamw", lr=0.01, momentum=0.9, weight_decay=0.01, weight_decay_scaling="paper", bias_lr_factor=2,
    bias_decay=False, encoder_lr_factor=1, schedule="plateau", step_size=10, eval_every=150, warmup=5, iterations=600,
    batch_size=4, micro_batches=2, bn_batches=0, bn_batch_size=2, seed=1,
)  # fmt: skip
KILLS = 24
RESULT = Path("result.json")


def make(row, rng):
    return rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), rng.integers(0, 5, (8, 8), dtype=np.uint8)


def train(stage: str | None) -> None:
    """What a stage does: train from scratch, or from the last checkpoint, and write the result."""
    os.environ.pop("DVC_STAGE", None)
    if stage:
        os.environ["DVC_STAGE"] = stage
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Dropout(0.3), nn.Conv2d(6, 5, 1))
    batches, logged = Batches(pd.DataFrame({"image": range(9)}), 4, SOLVER.iterations, 1, make), []
    curve = loop.train(net, batches, SOLVER, validation=batches.resampled(2, 4), log=logged.append, num_rows=30)
    assert logged == curve.where(curve.notna(), None).apply(lambda r: r.dropna().to_dict(), axis=1).tolist()
    RESULT.write_text(json.dumps({"weights": files.fingerprint(*net.state_dict().values()), "curve": curve.to_csv()}))


def die_while_writing(half: bool) -> None:
    """The process ends while it writes the next checkpoint: after half of it, or before it gets its name."""

    def write(path: Path, content: bytes) -> None:
        partial = path.with_name(f".{path.name}.partial")
        content = io.BytesIO(content).getvalue()
        partial.write_bytes(content[: len(content) // 2] if half else content)
        os.kill(os.getpid(), signal.SIGKILL)

    resume.write_atomic = write


def child(stage: str | None, then=lambda: None) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            then()
            train(stage)
        except BaseException as error:  # a fork must never run on into the parent's loop
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def main() -> None:
    chance = random.Random(int(sys.argv[1]))
    assert os.waitpid(child(None), 0)[1] == 0
    expected = json.loads(RESULT.read_text())
    RESULT.unlink()
    kills, positions = 0, set()
    while not RESULT.exists():
        if kills % 4 == 3 and kills < KILLS:
            pid = child("tiny", partial(die_while_writing, half=kills % 8 == 3))
        else:
            pid = child("tiny")
            if kills < KILLS:
                time.sleep(chance.uniform(0.05, 0.25))
                os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert status in (0, signal.SIGKILL), status
        kills += status != 0
        if state := resume.load_checkpoint(resume.stage_dir("tiny") / "training" / "state.pt", "cpu"):
            positions.add(state["step"])
    same = json.loads(RESULT.read_text()) == expected
    print(json.dumps({"kills": kills, "positions": len(positions), "same": same}))


if __name__ == "__main__":
    main()

"""A tiny training, for one process or for several: what test_distributed.py and its notebook train."""

import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from deconvnet.config import machine, schema
from deconvnet.images.batches import Batches

SOLVER = schema.Solver(
    optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=0.01, decay="effective", bias_lr_factor=2, bias_decay=False,
    encoder_lr_factor=1, schedule="plateau", step=10, look=8, warmup=2, iterations=30, batch=16, micro_batches=4, bn_batches=3,
    bn_batch_size=8, seed=1,
)  # fmt: skip
POINTS = 10  # a row each 3 iterations: checkpoints lie between rows


def make(row, rng):
    """Noise whose mean colour tells its label."""
    label = int(rng.integers(5))
    image = rng.normal(128, 40, (8, 8, 3)) + 60 * np.array([label == 1, label == 2, label > 2])
    return image.astype(np.float32), np.full((8, 8), label, np.uint8)


def network() -> nn.Module:
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 1)
    return nn.Sequential(nn.BatchNorm2d(3), first, nn.BatchNorm2d(6), nn.ReLU(), second)


def batches(kind: type[Batches] = Batches, steps: int = SOLVER.iterations) -> Batches:
    return kind(pd.DataFrame({"image": range(9)}), SOLVER.batch_size, steps, 1, make)


class Noted(Batches):
    """Batches that write down which rank has drawn which of them."""

    def __getitem__(self, step):
        with open(f"drawn-{machine.rank()}", "a") as file:
            file.write(f"{step}\n")
        return super().__getitem__(step)


def kill(step: int, row: dict) -> None:
    """A `log` for `train`: a file kill-STEP-RANK-PART ends that part of that rank, kernel or runner, at that row."""
    for order in Path().glob(f"kill-{step}-{machine.rank()}-*"):
        order.unlink()
        os.kill(os.getppid() if order.name.endswith("runner") else os.getpid(), signal.SIGKILL)
        signal.pause()

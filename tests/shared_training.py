"""A tiny training that test_distributed.py runs in one process and in several: `launch.SCRIPT` names this module."""

import os
import runpy
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from deconvnet.config import machine, schema
from deconvnet.config.errors import UserError
from deconvnet.images.batches import Batches
from deconvnet.training import recipes
from deconvnet.utils import resume

SOLVER = schema.Solver(
    optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=0.01, weight_decay_scaling="caffe", bias_lr_factor=2,
    bias_decay=False, encoder_lr_factor=1, schedule="plateau", step_size=10, eval_every=8, warmup=2, iterations=30,
    batch_size=16, micro_batches=4, bn_batches=3, bn_batch_size=8, seed=1,
)  # fmt: skip


class RecordedBatches(Batches):
    """Each rank writes down the batches of the training that it makes. A file kill-STEP-RANK or kill-STEP-RANK-parent
    orders it to kill itself or its parent then.
    """

    def __getitem__(self, step):
        if self.seed == SOLVER.seed:  # not a resampled batch
            with open(f"sampled-{machine.rank()}", "a") as file:
                file.write(f"{step}\n")
            for order in Path().glob(f"kill-{step}-{machine.rank()}*"):
                order.unlink()
                os.kill(os.getppid() if order.name.endswith("parent") else os.getpid(), signal.SIGKILL)
                signal.pause()
        return super().__getitem__(step)


def make(row, rng):
    """Noise whose mean colour depends on its label."""
    label = int(rng.integers(5))
    image = rng.normal(128, 40, (8, 8, 3)) + 60 * np.array([label == 1, label == 2, label > 2])
    return image.astype(np.float32), np.full((8, 8), label, np.uint8)


def tiny_recipe() -> recipes.Recipe:
    if Path("refused").exists() and machine.rank():
        raise UserError("Rank 1 refuses.")
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 1)
    net = nn.Sequential(nn.BatchNorm2d(3), first, nn.BatchNorm2d(6), nn.ReLU(), second)
    table = pd.DataFrame({"image": range(9)})
    batches = {
        "train": RecordedBatches(table, SOLVER.batch_size, SOLVER.iterations, SOLVER.seed, make),
        "dev": Batches(table, SOLVER.batch_size, SOLVER.iterations, SOLVER.seed + 1, make),
    }
    return recipes.Recipe("tiny", "tiny", net, batches, SOLVER, num_validation=2)


def save_and_record(path: Path, state: dict, save=resume.save_checkpoint) -> None:
    with open("writers", "a") as file:
        file.write(f"{machine.rank()} {'checkpoint' if path.parent.name == 'tiny' else 'result'}\n")
    save(path, state)


if __name__ == "__main__":
    recipes.by_name = lambda name, settings: {"tiny": tiny_recipe}[name]()
    resume.save_checkpoint = save_and_record
    runpy.run_module("deconvnet.training.script", run_name="__main__")

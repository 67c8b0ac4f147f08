"""Training batches, each a function of (seed, step) alone."""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from deconvnet.images.image_cache import Images
from deconvnet.utils.files import fingerprint


class Batches(Dataset):
    """Item `step` is one training batch, a function of (seed, step) alone: any worker may make any of them.

    Examples are sampled with replacement, by the column `weight` of the table if it has one. `make(row, rng)` gives the
    image and label of one; `make_on_device`, if given, those of a whole batch on a GPU, equal to one grey level.
    `join(examples)`, if given, brings those of a batch to one size.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        batch_size: int,
        steps: int,
        seed: int,
        make: Callable,
        images: Images | None = None,
        make_on_device: Callable | None = None,
        join: Callable | None = None,
    ):
        self.table, self.batch_size, self.steps, self.seed = table, batch_size, steps, seed
        self.make, self.make_on_device, self.join, self.images = make, make_on_device, join, images
        self.weights = table["weight"] / table["weight"].sum() if "weight" in table else None

    def resampled(self, steps: int, batch_size: int) -> "Batches":
        """Other samples of the same kind: for batch-norm statistics, or as validation batches."""
        other = copy.copy(self)
        other.steps, other.batch_size, other.seed = steps, batch_size, self.seed + 1000
        return other

    def fingerprint(self) -> str:
        """A hash over what the batches depend on, besides code and settings."""
        images = self.images.fingerprint() if self.images else None
        return fingerprint(self.table, self.batch_size, self.steps, self.seed, images)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """float (N, 3, s, s) RGB in 0–255 and int64 labels, (N, s, s) or, for the backbone, (N,)."""
        rows, rng = self.sample(step)
        examples = [self.make(row, rng) for row in rows.itertuples()]
        if self.join:
            examples = self.join(examples)
        images, labels = (np.stack(part) for part in zip(*examples, strict=True))
        images = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        return images, torch.from_numpy(labels).long()

    def sample(self, step: int) -> tuple[pd.DataFrame, np.random.Generator]:
        """The rows of batch `step`, and the random generator for the rest of it."""
        if not 0 <= step < self.steps:
            raise IndexError(step)
        rng = np.random.default_rng([self.seed, step])
        return self.table.iloc[rng.choice(len(self.table), size=self.batch_size, p=self.weights)], rng

    def on_device(self, device: torch.device, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches from number `start` on, made on `device`, where all images lie."""
        for step in range(start, self.steps):
            yield self.make_on_device(*self.sample(step), device)

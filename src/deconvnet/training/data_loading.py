"""Training batches on their way to the device."""

from collections.abc import Iterable

import torch
from torch.utils.data import DataLoader

from deconvnet.config import machine
from deconvnet.images.batches import Batches

MIN_LOADER_WORKERS = 4  # to make 64 crops of 224 px in the time of one iteration of the paper's network on a fast GPU


def loader(batches: Batches, start: int = 0) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """The batches from number `start` on. Torch's global random state is left alone.

    The CPU makes them, for a GPU in processes beside the training. With too few of these, a GPU that holds all images
    makes its crops itself; queueing that work takes the training a sixth of an iteration of the paper's network.
    """
    device, random = machine.device(), torch.Generator()
    few_workers = device.type == "cuda" and machine.workers() < MIN_LOADER_WORKERS
    if few_workers and batches.make_on_device and batches.images.fits(device):
        return batches.on_device(device, start)
    order = range(start, len(batches))
    return DataLoader(
        batches, None, sampler=order, num_workers=machine.workers(), pin_memory=device.type == "cuda", generator=random
    )

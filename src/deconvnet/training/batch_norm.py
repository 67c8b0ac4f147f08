"""Batch normalisation as the paper and its release use it: statistics of each micro-batch in training (section 4.1),
and averages over many batches for inference.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from tqdm import tqdm

from deconvnet.config import machine
from deconvnet.images.batches import Batches
from deconvnet.training.data_loading import loader


@contextmanager
def ghost_batch_norm(net: nn.Module, micro_batches: int) -> Iterator[None]:
    """Inside, each of so many micro-batches of a batch has batch-norm statistics of its own (Hoffer et al., 2017).

    The other layers run on the whole batch: on a GPU that is faster than one micro-batch after another.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)] if micro_batches > 1 else []
    for norm in norms:
        forward = norm.forward
        norm.forward = lambda x, forward=forward: torch.cat([forward(part) for part in x.chunk(micro_batches)])
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward  # the class's method is visible again


@torch.no_grad()
def fix_batch_norm(net: nn.Module, batches: Batches) -> None:
    """Replaces the running statistics by averages over `batches` (501 of 28 images in the release), if there are any;
    sets `net` to inference.
    """
    net.eval()
    if len(batches) == 0:
        return
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's cumulative average
    net.train()
    for images, _ in tqdm(
        loader(batches), total=len(batches), desc="batch-norm statistics", unit="batch", mininterval=1
    ):
        net(images.to(machine.device(), memory_format=torch.channels_last))
    net.eval()

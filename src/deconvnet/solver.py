"""The solver of the release (its section 3): the loss, the optimizer, and how the rate falls."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from deconvnet.params import Solver
from deconvnet.voc import VOID


def loss_of(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the non-void pixels, 0 if there are none; scores (N, C, …), labels (N, …).

    On a CPU maps in channels_last are taken as the rows that they are in memory: as maps, torch would copy them there
    and back. A GPU's kernel for rows is made for some thousands of them, not for the pixels of a batch.
    """
    if not scores.is_cuda:
        scores, labels = scores.movedim(1, -1).flatten(0, -2), labels.flatten()
    total = F.cross_entropy(scores, labels, ignore_index=VOID, reduction="sum")
    return total / (labels != VOID).sum().clamp(min=1)


def make_optimizer(net: nn.Module, settings: Solver) -> torch.optim.Optimizer:
    """Parameter groups: the encoder's rate is scaled, and the biases of (de)convolutions have rules of their own."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for path, module in net.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                # Batch norm's shift is no bias here: it is decayed as its scale.
                is_bias = name == "bias" and not isinstance(module, nn.BatchNorm2d)
                groups.setdefault((path.startswith("encoder"), is_bias), []).append(parameter)
    decay = settings.weight_decay / (settings.accumulate if settings.decay == "effective" else 1)
    options = [
        {
            "params": parameters,
            "lr": settings.lr * (settings.encoder_lr if in_encoder else 1) * (settings.bias_lr if is_bias else 1),
            "weight_decay": decay if settings.bias_decay or not is_bias else 0.0,
        }
        for (in_encoder, is_bias), parameters in groups.items()
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(options, momentum=settings.momentum)
    return torch.optim.AdamW(options, betas=(settings.momentum, 0.999), fused=True)


def rate(step: int, settings: Solver, drops: int = 0) -> float:
    """The factor on the learning rate at an update, counted from 0; `drops`: how often dev has stopped improving."""
    if step < settings.warmup:
        return (step + 1) / (settings.warmup + 1)
    if settings.schedule == "plateau":
        return 0.1**drops
    if settings.schedule == "step":
        return 0.1 ** (step // settings.step)
    done = (step - settings.warmup) / max(settings.updates - settings.warmup, 1)
    return (1 + math.cos(math.pi * done)) / 2

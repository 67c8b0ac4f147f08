"""The solver (section 6.1; details from the release's solver.prototxt files): the loss, the optimizer, and the learning
rate schedule.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from deconvnet.config.schema import Solver
from deconvnet.data.voc import VOID


def mean_cross_entropy(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the non-void pixels, 0 if there are none; scores (N, C, …), labels (N, …).

    On a CPU, channels-last maps are passed as the rows that they are in memory: as maps, torch would copy them twice.
    A GPU's kernel for rows is meant for thousands of them, not for the pixels of a batch.
    """
    if not scores.is_cuda:
        scores, labels = scores.movedim(1, -1).flatten(0, -2), labels.flatten()
    total = F.cross_entropy(scores, labels, ignore_index=VOID, reduction="sum")
    return total / (labels != VOID).sum().clamp(min=1)


def make_optimizer(net: nn.Module, solver: Solver) -> torch.optim.Optimizer:
    """SGD or AdamW with parameter groups: for the encoder and its blocks, and for the biases of (de)convolutions."""
    encoder = solver.encoder_lr_factor
    factors = {"encoder.blocks": encoder * solver.blocks_lr_factor, "encoder": encoder, "": 1}  # the first that fits
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for path, module in net.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                # Batch norm's shift is no bias here: it is decayed like its scale.
                is_bias = name == "bias" and not isinstance(module, nn.BatchNorm2d)
                part = next(part for part in factors if path.startswith(part))
                groups.setdefault((part, is_bias), []).append(parameter)
    # The release's Caffe adds decay once to the sum of the micro-batches' gradients, then divides by their number.
    decay = solver.weight_decay / (solver.micro_batches if solver.weight_decay_scaling == "caffe" else 1)
    options = []
    for (part, is_bias), parameters in groups.items():
        lr = solver.lr * factors[part] * (solver.bias_lr_factor if is_bias else 1)
        weight_decay = decay if solver.bias_decay or not is_bias else 0.0
        options.append({"params": parameters, "lr": lr, "weight_decay": weight_decay})
    if solver.optimizer == "sgd":
        return torch.optim.SGD(options, momentum=solver.momentum)
    return torch.optim.AdamW(options, betas=(solver.momentum, 0.999), fused=True)


def lr_factor(step: int, solver: Solver, plateaus: int = 0) -> float:
    """The factor on the learning rate at iteration `step`, counted from 0, after so many `plateaus` on dev."""
    if step < solver.warmup:
        return (step + 1) / (solver.warmup + 1)
    if solver.schedule == "plateau":
        return 0.1**plateaus
    if solver.schedule == "step":
        return 0.1 ** (step // solver.step_size)
    done = (step - solver.warmup) / max(solver.iterations - solver.warmup, 1)
    return (1 + math.cos(math.pi * done)) / 2

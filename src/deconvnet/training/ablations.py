"""How the ablations of claims C6, C7 and C8 are trained: from the same backbone, with the same number of iterations."""

import math

import torch

from deconvnet.config.schema import Crops, Params
from deconvnet.images.batches import Batches
from deconvnet.networks.variants import make_variant
from deconvnet.training import loop


def schedule(variant: str, settings: Params) -> list[tuple[int, Crops]]:
    """(stage whose examples are used, solver) of each training in turn. The iterations add up to the same number."""
    if variant == "one_stage":
        both = settings.stage1.iterations + settings.stage2.iterations
        return [(2, settings.stage2.model_copy(update={"iterations": both}))]
    return [(1, settings.stage1), (2, settings.stage2)]


def with_lr_factor(solver: Crops, factor: float, iterations: int | None = None) -> Crops:
    """The solver with `factor` times its learning rate and, if given, another number of iterations."""
    return solver.model_copy(update={"lr": factor * solver.lr, "iterations": iterations or solver.iterations})


def try_lr_factor(
    variant: str, settings: Params, factor: float, iterations: int, batches: Batches, validation: Batches
) -> float:
    """Dev loss after a short first training with `factor` times the learning rate; infinite if it diverges.

    A rate that suits the whole network may hurt one without batch norm: each variant gets the rate that is best for it
    on dev, before anything is compared.
    """
    solver = with_lr_factor(schedule(variant, settings)[0][1], factor, iterations)
    torch.manual_seed(solver.seed)
    short, net = batches.resampled(iterations, solver.batch_size), make_variant(variant, settings)
    try:
        curve = loop.train(net, short, solver, name=f"lr factor {factor:g}", validation=validation)
    except FloatingPointError:
        return math.inf
    return float(curve["dev_loss"].iloc[-1])

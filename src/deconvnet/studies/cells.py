"""Cells: an arm at a training budget. How it is trained, with which learning rate, and what is counted of it."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deconvnet.config.paths import OBJECTS, VOC
from deconvnet.config.schema import Crops, Fcn, Params
from deconvnet.data import voc
from deconvnet.evaluation import per_image
from deconvnet.evaluation.per_image import PerImageCounts
from deconvnet.images.store import load_proposals
from deconvnet.networks.fuse import for_inference
from deconvnet.studies.arms import Phase, network, phases, predict
from deconvnet.training import batch_norm, loop
from deconvnet.training.recipes import COUNTED_BATCHES, split_images
from deconvnet.utils import parallel

FACTORS = (0.1, 0.3, 1.0, 3.0)  # of the learning rate, tried for every arm
TRIAL = 200  # iterations of a trial, of the first training
VALIDATION = 8  # batches of dev, whose loss decides
WATCHED = 40  # scenes of dev, whose mean IoU is followed in the last training


def scaled(solver: Crops | Fcn, budget: float, factor: float = 1.0) -> Crops | Fcn:
    """The solver with `budget` times its iterations and `factor` times its learning rate."""
    return solver.model_copy(update={"iterations": round(budget * solver.iterations), "lr": factor * solver.lr})


def with_solver(phase: Phase, solver: Crops | Fcn) -> Phase:
    """The phase with another solver, and as many batches as it has iterations."""
    batches = dict(phase.batches)
    for split, of_split in batches.items():
        batches[split] = of_split.resampled(solver.iterations, solver.batch_size)
        batches[split].seed = of_split.seed
    return replace(phase, batches=batches, solver=solver)


def flops(net: nn.Module, phase: Phase) -> int:
    """Of one iteration, forward and backward."""
    some = phase.batches["train"].resampled(COUNTED_BATCHES, phase.solver.batch_size)
    return loop.flops_per_iteration(net, some, phase.solver.micro_batches)


def operations(arm: str, settings: Params) -> tuple[int, int]:
    """The FLOP of one iteration of an arm, and of all its iterations at budget 1: as many as both stages of DeconvNet
    have. (FCN-8s's own number of iterations in the settings is held to that by a test.)
    """
    own = flops(network(arm, settings), phases(arm, settings)[0])
    reference = flops(network("deconvnet", settings), phases("deconvnet", settings)[0])
    return own, reference * (settings.stage1.iterations + settings.stage2.iterations)


def budgeted(arm: str, settings: Params, budget: float, factor: float) -> list[Phase]:
    """The trainings of a cell: those of its arm, with as many iterations as `budget` times DeconvNet's operations."""
    found = phases(arm, settings)
    own, total = operations(arm, settings)
    share = budget * total / (own * sum(phase.solver.iterations for phase in found))
    return [with_solver(phase, scaled(phase.solver, share, factor)) for phase in found]


def try_factor(arm: str, settings: Params, factor: float, iterations: int = TRIAL) -> float:
    """Dev loss after a short first training with `factor` times the learning rate; infinite if it diverges."""
    phase = phases(arm, settings)[0]
    update = {"iterations": iterations, "lr": factor * phase.solver.lr}
    phase = with_solver(phase, phase.solver.model_copy(update=update))
    torch.manual_seed(phase.solver.seed)
    validation = phase.batches["dev"].resampled(VALIDATION, phase.solver.batch_size)
    try:
        name = f"{arm}, rate × {factor:g}"
        curve = loop.train(
            network(arm, settings), phase.batches["train"], phase.solver, name=name, validation=validation
        )
    except FloatingPointError:
        return math.inf
    return float(curve["dev_loss"].iloc[-1])


def train(arm: str, settings: Params, budget: float, factor: float) -> tuple[nn.Module, list[pd.DataFrame], int]:
    """The trained network of a cell, the curve of each of its trainings, and their FLOP. The last curve has a column
    dev_mean_iou, of WATCHED scenes of dev.
    """
    found, total = budgeted(arm, settings, budget, factor), 0
    torch.manual_seed(found[0].solver.seed)
    net, curves = network(arm, settings), []
    for number, phase in enumerate(found, start=1):
        total += phase.solver.iterations * flops(net, phase)
        validation = phase.batches["dev"].resampled(VALIDATION, phase.solver.batch_size)
        name = f"{arm} × {budget:g}, training {number}"
        log = watch(arm, net, settings) if number == len(found) else lambda row: None
        curves.append(loop.train(net, phase.batches["train"], phase.solver, name=name, validation=validation, log=log))
    solver, batches = found[-1].solver, found[-1].batches["train"]
    batch_norm.fix_batch_norm(net, batches.resampled(solver.bn_batches, solver.bn_batch_size))
    return net, curves, total


def watch(arm: str, net: nn.Module, settings: Params) -> Callable[[dict], None]:
    """For `loop.train`: adds to a curve's rows that have a dev loss the mean IoU on WATCHED scenes of dev, with the
    running statistics of batch norm. A row that was made before an interruption has it already.
    """
    names = voc.read_list(VOC, "dev")[:WATCHED]
    images = split_images("dev")

    def log(row: dict) -> None:
        if "dev_loss" in row and "dev_mean_iou" not in row:
            maps = label_maps(arm, net.eval(), "dev", settings, names)
            net.train()
            counted = [per_image.image_counts(images[name][1], labels) for name, labels in maps.items()]
            row["dev_mean_iou"] = float(per_image.mean_iou(np.sum(counted, axis=0)))

    return log


def label_maps(
    arm: str, net: nn.Module, split: str, settings: Params, names: list[str] | None = None
) -> dict[str, np.ndarray]:
    """{image: label map} of a split, or of some of its images."""
    names, proposals = names or voc.read_list(VOC, split), load_proposals(split)
    images, net = split_images(split), for_inference(net)

    def task(name: str) -> np.ndarray:
        scores = predict(arm, net, images[name][0], proposals[name], settings)
        return scores.argmax(dim=0).byte().cpu().numpy()

    return dict(zip(names, parallel.thread_map(task, names, f"{arm} on {split}"), strict=True))


def inference_flops(nets: dict[str, nn.Module], settings: Params) -> int:
    """FLOP of the forward passes of {arm: network} for one image: the mean over the first images of val."""
    names, proposals, images = voc.read_list(VOC, "val")[:COUNTED_BATCHES], load_proposals("val"), split_images("val")
    with FlopCounterMode(display=False) as counter:
        for arm, net in nets.items():
            for name in names:
                predict(arm, net, images[name][0], proposals[name], settings)
    return counter.get_total_flops() // len(names)


def count(arm: str, found: dict[str, np.ndarray], split: str, settings: Params) -> PerImageCounts:
    """What the figures and claims need of label maps: pixels of each image, and objects, in few bytes."""
    objects, width = voc.read_objects(OBJECTS, split), settings.report.boundary_width
    read: Callable = lambda method, name: found[name]  # noqa: E731
    counts = per_image.method_counts(list(found), objects, (arm,), width, read)
    del counts[f"boundary/{arm}"]
    return {key: v.astype(np.float16) if v.dtype == np.float64 else v for key, v in counts.items()}


def mean_iou(counts: PerImageCounts, arm: str) -> float:
    return float(per_image.mean_iou(counts[f"counts/{arm}"].sum(axis=0)))

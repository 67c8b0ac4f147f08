"""What each training of the pipeline consists of: a network as it starts, batches of train and dev, and a solver.

A notebook shows a recipe and trains it with `launch.train`; several processes build the same recipe by its name.
"""

from dataclasses import dataclass

import torch
from torch import nn

from deconvnet.config.paths import VOC
from deconvnet.config.schema import Params, Solver
from deconvnet.data import voc
from deconvnet.images.batches import Batches
from deconvnet.images.image_cache import Images
from deconvnet.networks import build, weights
from deconvnet.training.examples import crop_batches, image_batches, stage_table
from deconvnet.training.loop import flops_per_iteration

COUNTED_BATCHES = 16  # whose operations are averaged


@dataclass(frozen=True)
class Recipe:
    """One training. Several recipes may share a network and a curve; `first_step` iterations then came before."""

    name: str  # of the recipe; `by_name` builds it again in another process
    curve: str  # folder of reports/curves
    net: nn.Module
    batches: dict[str, Batches]  # of "train" and "dev"
    solver: Solver
    first_step: int = 0
    num_validation: int = 8  # batches of dev, whose loss is shown beside the training loss

    def validation(self) -> Batches:
        return self.batches["dev"].resampled(self.num_validation, self.solver.batch_size)

    def for_batch_norm(self) -> Batches:
        """The batches whose statistics are averaged for inference."""
        return self.batches["train"].resampled(self.solver.bn_batches, self.solver.bn_batch_size)

    def compute(self) -> dict[str, int]:
        """The training's floating-point operations, for reports/compute."""
        some = self.batches["train"].resampled(COUNTED_BATCHES, self.solver.batch_size)
        flops = flops_per_iteration(self.net, some, self.solver.micro_batches)
        iterations = self.solver.iterations
        return {"iterations": iterations, "flops_per_iteration": flops, "flops": flops * iterations}


def split_images(split: str) -> Images:
    return Images(VOC, voc.read_list(VOC, split))


def stage(number: int, settings: Params) -> Recipe:
    """Section 4.2: stage 1 starts from the backbone (or published weights), stage 2 from stage 1."""
    solver, batches = {1: settings.stage1, 2: settings.stage2}[number], {}
    for split in ("train", "dev"):
        table = stage_table(number, split, settings)
        batches[split] = crop_batches(split_images(split), table, solver, settings.network.size)
    torch.manual_seed(solver.seed)
    net = build.make_deconvnet(settings)
    if number == 1:
        weights.initialise(net, settings.weights.deconvnet)
    else:
        weights.load(net, "stage1")
    return Recipe(f"stage{number}", f"stage{number}", net, batches, solver)


def fcn(settings: Params) -> Recipe:
    """FCN-8s on whole images, from the same backbone as DeconvNet (or from published weights)."""
    solver, stride = settings.fcn, 2 ** len(settings.network.blocks)
    batches = {s: image_batches(split_images(s), voc.read_list(VOC, s), solver, stride) for s in ("train", "dev")}
    torch.manual_seed(solver.seed)
    net = weights.initialise(build.make_fcn(settings), settings.weights.fcn8s)
    return Recipe("fcn8s", "fcn8s", net, batches, solver)


def backbone(settings: Params) -> dict[str, Recipe]:
    """The phases of the backbone's training: a classifier of object crops, then of proposal crops.

    `backbone.source` train starts it from random weights, file from the file's; with any other there are no phases.
    """
    solver = settings.backbone
    torch.manual_seed(solver.seed)
    net = build.make_classifier(settings)
    update = {"iterations": solver.proposal_iterations, "seed": solver.seed + 10}
    phases = {"objects": (1, solver), "proposals": (2, solver.model_copy(update=update))}
    phases = {k: v for k, v in phases.items() if v[1].iterations and solver.source in ("train", "file")}
    if phases and solver.source == "file":
        weights.start_from_vgg16(net.encoder, solver)
    images = {split: split_images(split) for split in ("train", "dev") if phases}
    recipes, first_step = {}, 0
    for phase, (number, part) in phases.items():
        batches = {}
        for split, pictures in images.items():
            table = stage_table(number, split, settings).query("label > 0")  # every crop has a class
            batches[split] = crop_batches(pictures, table, part, settings.network.size)
        recipes[phase] = Recipe(f"backbone {phase}", "backbone", net, batches, part, first_step)
        first_step += part.iterations
    return recipes


def by_name(name: str, settings: Params) -> Recipe:
    kind, _, phase = name.partition(" ")
    if kind == "backbone":
        return backbone(settings)[phase]
    return fcn(settings) if kind == "fcn8s" else stage(int(kind.removeprefix("stage")), settings)

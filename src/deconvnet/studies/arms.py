"""The arms of the studies: what each network is, what it is trained on, and how it predicts an image.

deconvnet          the paper's: a deconvolution decoder, trained on crops in two stages, applied to 50 proposals
fcn8s              the baseline: FCN-8s, trained on whole images and applied to them
fcn8s_proposals    FCN-8s trained on DeconvNet's crops in two stages and applied to 50 proposals, with the same maximum
deconvnet_whole    DeconvNet trained on whole images, resized to its input, and applied to the whole image once
one_stage, no_batch_norm, no_batch_norm_he, bilinear     DeconvNet without one of its parts (networks/variants.py)

The first four are the 2×2 of decoder and input. All arms start from one backbone and get the same training operations.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from deconvnet.config.paths import VOC
from deconvnet.config.schema import Crops, Fcn, Params
from deconvnet.data import voc
from deconvnet.images import boxes, crops
from deconvnet.images.batches import Batches
from deconvnet.images.image_cache import Images
from deconvnet.inference import aggregate
from deconvnet.networks import build, variants, weights
from deconvnet.training.examples import crop_batches, image_batches, stage_table
from deconvnet.training.recipes import split_images

ARMS = ("deconvnet", "fcn8s", "fcn8s_proposals", "deconvnet_whole", *variants.VARIANTS)
TWO_BY_TWO = {  # (decoder, input): arm
    ("fcn8s", "whole image"): "fcn8s", ("fcn8s", "proposals"): "fcn8s_proposals",
    ("deconvolution", "whole image"): "deconvnet_whole", ("deconvolution", "proposals"): "deconvnet",
}  # fmt: skip
WHOLE = ("fcn8s", "deconvnet_whole")  # arms that see an image once


@dataclass(frozen=True)
class Phase:
    """One training of an arm, at budget 1."""

    batches: dict[str, Batches]  # of train and dev
    solver: Crops | Fcn


def network(arm: str, settings: Params) -> nn.Module:
    """With the backbone in its encoder, the rest newly initialised. Raises ValueError for an unknown arm."""
    if arm not in ARMS:
        raise ValueError(f"The arms are {', '.join(ARMS)}, not {arm}.")
    if arm in variants.VARIANTS:
        return variants.make_variant(arm, settings)
    if arm.startswith("fcn8s"):
        net = weights.initialise(build.make_fcn(settings), settings.weights.fcn8s)
        net.size = settings.network.size  # of its crops
        return net
    return weights.initialise(build.make_deconvnet(settings), settings.weights.deconvnet)


def phases(arm: str, settings: Params) -> list[Phase]:
    """The trainings of an arm in turn, with the number of iterations of the arm that it is measured against: of
    FCN-8s, or of both stages of DeconvNet.
    """
    names, size = {s: voc.read_list(VOC, s) for s in ("train", "dev")}, settings.network.size
    both = settings.stage1.iterations + settings.stage2.iterations
    if arm == "fcn8s":
        stride = 2 ** len(settings.network.blocks)
        return [Phase({s: image_batches(split_images(s), names[s], settings.fcn, stride) for s in names}, settings.fcn)]
    if arm == "deconvnet_whole":
        solver = settings.stage2.model_copy(update={"iterations": both})
        return [Phase({s: resized_batches(split_images(s), names[s], solver, size) for s in names}, solver)]
    stages = [(1, settings.stage1), (2, settings.stage2)]
    if arm == "one_stage":
        stages = [(2, settings.stage2.model_copy(update={"iterations": both}))]
    return [
        Phase({s: crop_batches(split_images(s), stage_table(n, s, settings), solver, size) for s in names}, solver)
        for n, solver in stages
    ]


def resized_batches(images: Images, names: list[str], solver: Crops, size: int) -> Batches:
    """Batches of whole images, resized to size × size whatever their shape, mirrored half of the time."""
    whole = image_batches(images, names, solver, 1)

    def make(row, rng):
        image, labels = whole.make(row, rng)
        image, labels = np.ascontiguousarray(image), np.ascontiguousarray(labels)
        return boxes.resize_image(image, size), boxes.resize_labels(labels, size)

    return Batches(whole.table, solver.batch_size, solver.iterations, solver.seed, make, images)


@torch.inference_mode()
def predict(arm: str, net: nn.Module, image: np.ndarray, proposals: np.ndarray, settings: Params) -> torch.Tensor:
    """RGB uint8 (H, W, 3) → raw scores, float (21, H, W), as the arm predicts an image."""
    options, shape = settings.inference, image.shape[:2]
    if arm == "fcn8s":
        return aggregate.score_image(net, image, options.fcn_canvas)
    if arm == "deconvnet_whole":
        box = np.array([0, 0, shape[1], shape[0]])
        ((scores,),) = aggregate.score_crops(net, [image], [box[None]], options.batch_size, options.antialias)
        return crops.resize_to_box(scores, box, shape, options.antialias)[2]
    selected = aggregate.select_proposals(proposals, shape, options)
    return aggregate.score_proposals(net, image, selected, options.batch_size, options.antialias)

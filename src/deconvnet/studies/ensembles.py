"""Ensembles of two trained cells: EDeconvNet with the CRF, and two networks of one family, of different seeds, which
say how much of its gain any ensemble has (claim C2).
"""

import numpy as np
from torch import nn

from deconvnet.config.paths import MODELS, VOC
from deconvnet.config.schema import Kernel, Params
from deconvnet.data import voc
from deconvnet.evaluation import metrics
from deconvnet.images.store import load_proposals
from deconvnet.inference import crf
from deconvnet.inference.score_split import MAKE
from deconvnet.networks import weights
from deconvnet.networks.fuse import for_inference
from deconvnet.studies.arms import predict
from deconvnet.training.recipes import split_images
from deconvnet.utils import parallel

ENSEMBLES = {  # name: its two members, (arm, folder of models/)
    "edeconvnet": (("deconvnet", "studies"), ("fcn8s", "studies")),
    "two_deconvnet": (("deconvnet", "studies"), ("deconvnet", "studies_other")),
    "two_fcn8s": (("fcn8s", "studies"), ("fcn8s", "studies_other")),
}
CHOOSING = 100  # scenes of dev, on which the CRF's kernel is chosen


def members(name: str, budget: int, settings: Params) -> list[tuple[str, nn.Module]]:
    """The networks of an ensemble, ready for inference."""
    found = []
    for arm, folder in ENSEMBLES[name]:
        net = weights.load(MAKE[arm](settings), f"{arm}-x{budget}", MODELS / folder)
        found.append((arm, for_inference(net)))
    return found


def probabilities(
    nets: list[tuple[str, nn.Module]], image: np.ndarray, proposals: np.ndarray, settings: Params
) -> list[np.ndarray]:
    """Class probabilities, float (21, H, W): the mean of the members', as EDeconvNet's are combined (section 5.2), and
    those of the first member.
    """
    maps = [predict(arm, net, image, proposals, settings).float().softmax(dim=0).cpu().numpy() for arm, net in nets]
    return [np.mean(maps, axis=0), maps[0]]


Wanted = list[tuple[int, Kernel | None]]  # of the two `probabilities` which one, and the CRF that follows, if any


def label_maps(
    nets: list[tuple[str, nn.Module]], split: str, settings: Params, wanted: Wanted, first: int | None = None
) -> list[dict[str, np.ndarray]]:
    """For each of `wanted` {image: label map}, of the first images of a split or of all."""
    names, proposals, images = voc.read_list(VOC, split)[:first], load_proposals(split), split_images(split)
    steps, normalise = settings.crf.iterations, settings.crf.normalise

    def task(name: str) -> list[np.ndarray]:
        image, found = images[name][0], []
        both = probabilities(nets, image, proposals[name], settings)
        for which, kernel in wanted:
            refined = both[which] if kernel is None else crf.refine(image, both[which], kernel, steps, normalise)
            found.append(refined.argmax(axis=0).astype(np.uint8))
        return found

    done = list(parallel.thread_map(task, names, f"ensemble on {split}"))
    return [dict(zip(names, maps, strict=True)) for maps in zip(*done, strict=True)]


def choose_kernels(nets: list[tuple[str, nn.Module]], settings: Params) -> list[Kernel]:
    """For the ensemble and for its first member the kernel with the highest mean IoU on CHOOSING scenes of dev."""
    candidates, images, measured = list(settings.crf.candidates), split_images("dev"), []
    wanted = [(which, kernel) for which in (0, 1) for kernel in candidates]
    for maps in label_maps(nets, "dev", settings, wanted, CHOOSING):
        counted = sum(metrics.confusion(images[name][1], labels) for name, labels in maps.items())
        measured.append(metrics.mean_iou(counted))
    return [candidates[int(np.argmax(part))] for part in np.array_split(measured, 2)]

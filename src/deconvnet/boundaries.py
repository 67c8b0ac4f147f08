"""Object boundaries, learned from the training split's own masks: edges for Edge Boxes where the structured forest that
the paper's proposals use is not at hand.

A small network labels each pixel as contour or not. Its answer at several scales of the image is averaged and thinned
to lines. Plain gradients also fire on texture; this network has seen where objects end.
"""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from deconvnet import boxes, checkpoints, cutting, machine, maps, parallel, voc
from deconvnet.examples import Batches, Images
from deconvnet.files import digest, finished, stamps
from deconvnet.params import Boundaries
from deconvnet.voc import VOID

FAR = 6  # px: VOC's void border is 5 px wide, so void further from any label is an area nobody has labelled


class BoundaryNet(nn.Module):
    """(N, 3, H, W) RGB in 0–255, any H and W → (N, 2, H, W) scores of "no contour" and "contour".

    A U-Net (Ronneberger et al., 2015) with two convolutions a level on the way down and one on the way up.
    """

    def __init__(self, widths: list[int]):
        super().__init__()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for inputs, width in pairwise([3, *widths]):
            self.down.append(nn.Sequential(_layer(inputs, width), _layer(width, width)))
        for width, finer in pairwise(widths[::-1]):
            self.up.append(_layer(width + finer, finer))
        self.score = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        cell = 2 ** len(self.up)
        x = F.pad((x - 114) / 58, (0, -width % cell, 0, -height % cell), mode="replicate")
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skips.pop()], dim=1))
        return self.score(x)[..., :height, :width]


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def contours(instances: np.ndarray) -> np.ndarray:
    """Instance mask (H, W) → uint8 (H, W): 1 on both sides of each border between two instances or an instance and the
    background, 0 elsewhere, void where no label is near.

    VOC's void border hides the contour: there each pixel first goes to the instance that is nearest.
    """
    void = instances == VOID
    if void.all():
        return np.full_like(instances, VOID)
    distance, cell = cv2.distanceTransformWithLabels(
        void.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_cell = np.zeros(cell.max() + 1, np.uint8)
    of_cell[cell[~void]] = instances[~void]
    filled = of_cell[cell]
    marked = np.zeros_like(instances)
    for axis in (0, 1):
        changes = np.diff(filled, axis=axis) != 0
        after, before = [(1, 0), (0, 0)], [(0, 1), (0, 0)]
        for side in (after, before):
            marked |= np.pad(changes, side if axis == 0 else side[::-1])
    marked[distance > FAR] = VOID
    return marked


def boundary_batches(images: Images, names: list[str], settings: Boundaries) -> Batches:
    """Random square parts of the images, between `zoom[0]` and `zoom[1]` times `crop` wide, resized to `crop`, mirrored
    and brightened at random; labels as `contours` gives them.
    """
    side = settings.crop
    marked = {name: contours(images[name][2]) for name in names}

    def make(row, rng):
        image, marks = images[row.image][0], marked[row.image]
        wide = round(side * np.exp(rng.uniform(*np.log(settings.zoom))))
        spare = np.array(image.shape[1::-1]) - wide
        x, y = rng.integers(np.minimum(spare, 0), np.maximum(spare, 0) + 1)
        box = np.array([x, y, x + wide, y + wide])
        image = boxes.resize_image(boxes.crop(image, box, 0), side)
        marks = shrink_marks(boxes.crop(marks, box, VOID), side)
        image = np.clip(image * rng.uniform(0.7, 1.3) + rng.uniform(-30, 30), 0, 255)
        if rng.random() < 0.5:
            image, marks = image[:, ::-1], marks[:, ::-1]
        return np.ascontiguousarray(image), np.ascontiguousarray(marks)

    return Batches(pd.DataFrame({"image": names}), settings.batch, settings.updates, settings.seed, make, images)


def shrink_marks(marks: np.ndarray, side: int) -> np.ndarray:
    """`contours` resized to (side, side): a contour that is thinner than the step of the sampling stays whole."""
    resized = boxes.resize_labels(marks, side)
    if len(marks) > side:
        share = cv2.resize((marks == 1).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        resized = np.where(share > 0.25, 1, np.where(resized == 1, 0, resized)).astype(np.uint8)
    return resized


@torch.inference_mode()
def probability(net: BoundaryNet, image: np.ndarray, scales: list[float]) -> np.ndarray:
    """RGB uint8 (H, W, 3) → float32 (H, W) in 0–1: of a contour at each pixel, the mean over the image's `scales`."""
    shape, device = image.shape[:2], machine.device()
    whole = cutting.to_tensor(image[None]).to(device, memory_format=torch.channels_last)
    total = torch.zeros(shape, device=device)
    for scale in scales:
        size = [max(round(scale * side), 8) for side in shape]
        scaled = F.interpolate(whole, size, mode="bilinear", align_corners=False, antialias=True)
        part = net(scaled).softmax(dim=1)[:, 1:]
        total += F.interpolate(part, shape, mode="bilinear", align_corners=False)[0, 0]
    return (total / len(scales)).cpu().numpy()


def find_boundaries(net: BoundaryNet, folder: Path, names: list[str], scales: list[float]) -> None:
    """The map of contours of every image, written for Edge Boxes; those of a killed run are kept."""

    def made_from() -> dict[str, str]:
        return {
            "scales": digest(scales),
            "weights": digest(*net.state_dict().values()),
            "images": digest(stamps(voc.image_path(folder, name) for name in names)),
        }

    def one(name: str) -> None:
        maps.save_boundaries(name, probability(net, voc.read_image(folder, name), scales))

    checkpoints.claim("Contours", made_from, {maps.boundaries_path(name).parent for name in names})
    left = [name for name in names if not finished(maps.boundaries_path(name))]
    for _ in parallel.in_lanes(one, left, "boundaries"):
        pass

"""A boundary detector, learned from the masks of train: edges for Edge Boxes where the structured forest that the
paper's proposals use is not at hand. It is not in the paper.

A small network labels each pixel as boundary or not. Its maps at several scales of the image are averaged and thinned
to lines. Plain gradients also respond to texture; this network has seen where objects end.
"""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from deconvnet.config import machine
from deconvnet.config.schema import Boundaries
from deconvnet.data import voc
from deconvnet.data.voc import VOID
from deconvnet.images import boxes, crops, store
from deconvnet.images.batches import Batches
from deconvnet.images.image_cache import Images
from deconvnet.utils import parallel, resume
from deconvnet.utils.files import file_stamps, fingerprint, is_complete

MAX_VOID_DISTANCE_PX = 6  # px: VOC's void border is 5 px wide, so void farther from any label is an unlabelled area


class BoundaryNet(nn.Module):
    """(N, 3, H, W) RGB in 0–255, any H and W → (N, 2, H, W) scores of "no boundary" and "boundary".

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


def boundary_targets(instances: np.ndarray) -> np.ndarray:
    """Instance mask (H, W) → uint8 (H, W): 1 on both sides of each border between two instances or an instance and the
    background, 0 elsewhere, void where no label is near.

    VOC's void border hides the boundary: there each pixel is first given to the nearest instance.
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
    targets = np.zeros_like(instances)
    for axis in (0, 1):
        changes = np.diff(filled, axis=axis) != 0
        after, before = [(1, 0), (0, 0)], [(0, 1), (0, 0)]
        for side in (after, before):
            targets |= np.pad(changes, side if axis == 0 else side[::-1])
    targets[distance > MAX_VOID_DISTANCE_PX] = VOID
    return targets


def boundary_batches(images: Images, names: list[str], settings: Boundaries) -> Batches:
    """Random square crops of the images, of side zoom[0]–zoom[1] times `crop_size`, resized to it, mirrored and
    brightened at random; labels as from `boundary_targets`.
    """
    side = settings.crop_size
    targets = {name: boundary_targets(images[name][2]) for name in names}

    def make(row, rng):
        image, target = images[row.image][0], targets[row.image]
        wide = round(side * np.exp(rng.uniform(*np.log(settings.zoom))))
        spare = np.array(image.shape[1::-1]) - wide
        x, y = rng.integers(np.minimum(spare, 0), np.maximum(spare, 0) + 1)
        box = np.array([x, y, x + wide, y + wide])
        image = boxes.resize_image(boxes.crop(image, box, 0), side)
        target = resize_targets(boxes.crop(target, box, VOID), side)
        image = np.clip(image * rng.uniform(0.7, 1.3) + rng.uniform(-30, 30), 0, 255)
        if rng.random() < 0.5:
            image, target = image[:, ::-1], target[:, ::-1]
        return np.ascontiguousarray(image), np.ascontiguousarray(target)

    return Batches(
        pd.DataFrame({"image": names}), settings.batch_size, settings.iterations, settings.seed, make, images
    )


def resize_targets(targets: np.ndarray, side: int) -> np.ndarray:
    """`boundary_targets` resized to (side, side); boundaries thinner than the sampling step are kept."""
    resized = boxes.resize_labels(targets, side)
    if len(targets) > side:
        share = cv2.resize((targets == 1).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        resized = np.where(share > 0.25, 1, np.where(resized == 1, 0, resized)).astype(np.uint8)
    return resized


@torch.inference_mode()
def boundary_probability(net: BoundaryNet, image: np.ndarray, scales: list[float]) -> np.ndarray:
    """RGB uint8 (H, W, 3) → float32 (H, W) in 0–1: probability of a boundary, the mean over `scales` of the image."""
    shape, device = image.shape[:2], machine.device()
    whole = crops.to_tensor(image[None]).to(device, memory_format=torch.channels_last)
    total = torch.zeros(shape, device=device)
    for scale in scales:
        size = [max(round(scale * side), 8) for side in shape]
        scaled = F.interpolate(whole, size, mode="bilinear", align_corners=False, antialias=True)
        part = net(scaled).softmax(dim=1)[:, 1:]
        total += F.interpolate(part, shape, mode="bilinear", align_corners=False)[0, 0]
    return (total / len(scales)).cpu().numpy()


def find_boundaries(net: BoundaryNet, folder: Path, names: list[str], scales: list[float]) -> None:
    """Writes the boundary map of every image; an interrupted call resumes."""

    def inputs() -> dict[str, str]:
        return {
            "scales": fingerprint(scales),
            "weights": fingerprint(*net.state_dict().values()),
            "images": fingerprint(file_stamps(voc.image_path(folder, name) for name in names)),
        }

    def task(name: str) -> None:
        store.save_boundaries(name, boundary_probability(net, voc.read_image(folder, name), scales))

    resume.resume_dir("Boundaries", inputs, {store.boundaries_path(name).parent for name in names})
    left = [name for name in names if not is_complete(store.boundaries_path(name))]
    for _ in parallel.thread_map(task, left, "boundaries"):
        pass

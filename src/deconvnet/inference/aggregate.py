"""One image: DeconvNet on its proposals and the aggregation of their scores (section 5.1), FCN-8s on all of it."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from deconvnet.config import machine
from deconvnet.config.schema import Inference
from deconvnet.images import boxes, crops

AGGREGATION_RULES = ("maximum", "sum", "mean")


def select_proposals(proposals: np.ndarray, shape: tuple[int, int], settings: Inference) -> np.ndarray:
    """The extended boxes of the best `num_proposals` of (M, 5) proposals, for an image (H, W): int (N, 4).

    Boxes whose shorter side, once extended, is under `min_side` are skipped before the count, as in the release. For an
    image without proposals it is the whole image.
    """
    extended = boxes.extend(proposals[:, :4], settings.context, settings.square_boxes)
    shorter = (extended[:, 2:] - extended[:, :2]).min(axis=1)
    selected = extended[shorter >= settings.min_side][: settings.num_proposals]
    return selected if len(selected) else np.array([[0, 0, shape[1], shape[0]]])


@torch.inference_mode()
def score_crops(
    net: nn.Module, images: list[np.ndarray], proposals: list[np.ndarray], batch_size: int, antialias: bool = False
) -> tuple[torch.Tensor, ...]:
    """The raw scores of each image's (N, 4) boxes, float (N, 21, s, s); the crops of all images share batches."""
    device = machine.device()
    parts = [crops.crop_boxes(i, p, net.size, antialias, device) for i, p in zip(images, proposals, strict=True)]
    batches = torch.cat(parts).split(batch_size)
    scores = [net(batch.contiguous(memory_format=torch.channels_last)) for batch in batches]
    return torch.cat(scores).split([len(p) for p in proposals])


@torch.inference_mode()
def aggregate_maximum(
    scores: torch.Tensor, proposals: np.ndarray, shape: tuple[int, int], antialias: bool = False
) -> torch.Tensor:
    """Equation (1): the pixel-wise maximum of the proposals' raw scores over a base of 0, float32 (21, H, W).

    The base is the release's: a negative score never wins, and a pixel that no proposal covers is background. Softmax
    comes after the aggregation, never before.
    """
    canvas = crops.blank_canvas(scores.shape[1], shape, scores.device)
    for score, box in zip(scores, proposals, strict=True):
        crops.paste_maximum(canvas, score, box, antialias)
    return canvas


@torch.inference_mode()
def sum_scores(
    scores: torch.Tensor, proposals: np.ndarray, shape: tuple[int, int], antialias: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the proposals' raw scores (21, H, W), and the number of proposals over each pixel (H, W)."""
    total = crops.blank_canvas(scores.shape[1], shape, scores.device)
    count = torch.zeros(shape, device=scores.device)
    for score, box in zip(scores, proposals, strict=True):
        rows, columns, part = crops.resize_to_box(score, box, shape, antialias)
        total[:, rows, columns] += part
        count[rows, columns] += 1
    return total, count


def aggregate(
    scores: torch.Tensor, proposals: np.ndarray, shape: tuple[int, int], rule: str, antialias: bool = False
) -> torch.Tensor:
    """(21, H, W) raw scores by one of AGGREGATION_RULES; 0 where there is no proposal. Raises ValueError for another.

    maximum: as above. sum: over all proposals at a pixel. mean: their sum by their number, equation (2).
    """
    if rule not in AGGREGATION_RULES:
        raise ValueError(f"The aggregation rule is one of {', '.join(AGGREGATION_RULES)}, not {rule}.")
    if rule == "maximum":
        return aggregate_maximum(scores, proposals, shape, antialias)
    total, count = sum_scores(scores, proposals, shape, antialias)
    return total / count.clamp(min=1) if rule == "mean" else total


def largest_first(proposals: np.ndarray) -> np.ndarray:
    """The order from the largest box to the smallest, in which figure 6 adds them; equal ones keep their order."""
    sides = proposals[:, 2:] - proposals[:, :2]
    return np.argsort(-sides.prod(axis=1), kind="stable")


@torch.inference_mode()
def label_maps_by_count(
    scores: torch.Tensor, proposals: np.ndarray, shape: tuple[int, int], counts: list[int], antialias: bool = False
) -> Iterator[np.ndarray]:
    """The label map (H, W) after each of `counts` proposals, by the maximum; after all of them if there are fewer."""
    canvas = crops.blank_canvas(scores.shape[1], shape, scores.device)
    done = 0
    for count in sorted(counts):
        for i in range(done, min(count, len(proposals))):
            crops.paste_maximum(canvas, scores[i], proposals[i], antialias)
        done = max(done, min(count, len(proposals)))
        yield canvas.argmax(dim=0).byte().cpu().numpy()


def score_proposals(
    net: nn.Module, image: np.ndarray, proposals: np.ndarray, batch_size: int, antialias: bool = False
) -> torch.Tensor:
    """RGB uint8 (H, W, 3) and (N, 4) boxes → float (21, H, W): DeconvNet's aggregated raw scores."""
    (scores,) = score_crops(net, [image], [proposals], batch_size, antialias)
    return aggregate_maximum(scores, proposals, image.shape[:2], antialias)


@torch.inference_mode()
def score_image(net: nn.Module, image: np.ndarray, canvas: int | None = None) -> torch.Tensor:
    """RGB uint8 (H, W, 3) → float (21, H, W): FCN-8s on the whole image, not resized.

    With `canvas`, a smaller image is first padded right and below to that side with the network's mean, which becomes
    0. The release does so, to 500×500.
    """
    height, width = image.shape[:2]
    x = torch.from_numpy(np.ascontiguousarray(image)).to(machine.device()).permute(2, 0, 1)[None].float()
    if canvas:
        padded = net.encoder.mean.repeat(1, 1, max(canvas, height), max(canvas, width))
        padded[..., :height, :width] = x
        x = padded
    return net(x.contiguous(memory_format=torch.channels_last))[0, :, :height, :width].float()

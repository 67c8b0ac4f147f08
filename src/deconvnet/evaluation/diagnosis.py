"""Which part of DeconvNet's inference loses how much: one part at a time is given by the ground truth, or done in
another way (beyond the paper). Inference alone, with the trained network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import nn

from deconvnet.config.schema import Inference
from deconvnet.evaluation import errors, per_image
from deconvnet.evaluation.bootstrap import estimate
from deconvnet.evaluation.measures import iou, minus
from deconvnet.evaluation.metrics import confusion, mean_iou
from deconvnet.evaluation.per_image import PerImageCounts
from deconvnet.images import boxes, crops
from deconvnet.images.boxes import BOX
from deconvnet.images.image_cache import Images
from deconvnet.inference import aggregate
from deconvnet.utils import parallel

HIT = 0.5  # IoU of a proposal's box with an object's, from which on it hits the object
BIASES = [round(0.5 * step, 1) for step in range(-4, 21)]  # added to the background's score; dev chooses
REJECTIONS = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]  # the highest mean background probability a proposal may have; dev chooses
GIVEN = {  # by the ground truth
    "boxes": "proposals: the objects' own boxes",
    "hits": "proposals: only those that hit an object",
    "classes": "the class of each proposal",
    "shapes": "the shape in each proposal",
    "pixels": "the best proposal at each pixel (upper bound)",
}
OTHERWISE = {  # without the ground truth
    "bias": "a bias on the background's score, chosen on dev",
    "rejection": "proposals rejected by their background probability, chosen on dev",
    "softmax": "softmax of each proposal before the maximum",
    "mean": "mean instead of maximum",
}
PAPER = "paper"  # 50 proposals, maximum over a base of 0


@dataclass(frozen=True)
class Chosen:
    bias: float
    rejection: float


@dataclass(frozen=True)
class Scored:
    """One image and what the network says of its proposals."""

    ground_truth: np.ndarray  # (H, W)
    instances: np.ndarray
    objects: pd.DataFrame
    proposals: np.ndarray  # (N, 4), extended
    nearest: np.ndarray  # (N,) the object with the highest IoU of boxes, -1 if none overlaps
    overlap: np.ndarray  # (N,) that IoU
    scores: torch.Tensor  # (N, 21, s, s)
    antialias: bool

    @cached_property
    def parts(self) -> list[tuple[slice, slice, torch.Tensor]]:
        """The scores resized to their boxes: most variants differ in what they do with these."""
        pairs = zip(self.scores, self.proposals, strict=True)
        return [crops.resize_to_box(scores, box, self.ground_truth.shape, self.antialias) for scores, box in pairs]

    def maximum(self, kept: np.ndarray | None = None) -> torch.Tensor:
        """Equation (1) over the proposals that are kept, or all."""
        canvas = crops.blank_canvas(self.scores.shape[1], self.ground_truth.shape, self.scores.device)
        for i, (rows, columns, scores) in enumerate(self.parts):
            if kept is None or kept[i]:
                torch.maximum(canvas[:, rows, columns], scores, out=canvas[:, rows, columns])
        return canvas

    def mean(self) -> torch.Tensor:
        canvas = crops.blank_canvas(self.scores.shape[1], self.ground_truth.shape, self.scores.device)
        count = torch.zeros(self.ground_truth.shape, device=canvas.device)
        for rows, columns, scores in self.parts:
            canvas[:, rows, columns] += scores
            count[rows, columns] += 1
        return canvas / count.clamp(min=1)

    def of(self, scores: torch.Tensor) -> torch.Tensor:
        """Equation (1) over other scores of the same proposals."""
        return aggregate.aggregate_maximum(scores, self.proposals, self.ground_truth.shape, self.antialias)


def extended(objects: pd.DataFrame, settings: Inference) -> np.ndarray:
    """(M, 4): the objects' boxes, extended as proposals are."""
    return boxes.extend(objects[BOX].to_numpy(), settings.context, settings.square_boxes)


def matched(proposals: np.ndarray, objects: pd.DataFrame, settings: Inference) -> tuple[np.ndarray, np.ndarray]:
    """For (N, 4) extended boxes: the object with the highest IoU of boxes, extended alike, or -1; and that IoU."""
    if not len(objects):
        return np.full(len(proposals), -1), np.zeros(len(proposals))
    iou = boxes.box_iou(proposals, extended(objects, settings))
    best = iou.argmax(axis=1)
    overlap = iou[np.arange(len(iou)), best]
    return np.where(overlap > 0, best, -1), overlap


def score(net: nn.Module, example: tuple, objects: pd.DataFrame, proposals: np.ndarray, settings: Inference) -> Scored:
    image, ground_truth, instances = example
    selected = aggregate.select_proposals(proposals, ground_truth.shape, settings)
    (scores,) = aggregate.score_crops(net, [image], [selected], settings.batch_size, settings.antialias)
    nearest, overlap = matched(selected, objects, settings)
    return Scored(ground_truth, instances, objects, selected, nearest, overlap, scores, settings.antialias)


def with_classes(s: Scored) -> torch.Tensor:
    """Each proposal's scores with its class given: the highest object score of each pixel becomes that of the class of
    the nearest object. A proposal that overlaps no object stays as it is.
    """
    given = s.scores.clone()
    for i, nearest in enumerate(s.nearest):
        if nearest >= 0:
            given[i, 1:] = 0
            given[i, int(s.objects["label"].iloc[nearest])] = s.scores[i, 1:].amax(dim=0)
    return given


def with_shapes(s: Scored) -> torch.Tensor:
    """Each proposal's scores with its shape given: the class that most of its object pixels have, with the highest
    score of that class, on the nearest object's pixels and nowhere else. One that overlaps no object stays as it is.
    """
    given, labels = s.scores.clone(), s.scores.argmax(dim=1)
    for i, nearest in enumerate(s.nearest):
        if nearest < 0:
            continue
        given[i] = 0
        counts = torch.bincount(labels[i].flatten(), minlength=given.shape[1])[1:]
        if counts.any():
            label = 1 + int(counts.argmax())
            mask = (s.instances == s.objects["instance"].iloc[nearest]).astype(np.uint8)
            shape = boxes.resize_labels(boxes.crop(mask, s.proposals[i], 0), given.shape[-1])
            given[i, label] = torch.from_numpy(shape).to(given) * s.scores[i, label].amax()
    return given


def best_pixels(s: Scored, paper: np.ndarray) -> np.ndarray:
    """The label map where a pixel is right if any proposal over it has its class, or the aggregated label map."""
    right = paper == s.ground_truth
    for rows, columns, part in s.parts:
        right[rows, columns] |= part.argmax(dim=0).cpu().numpy() == s.ground_truth[rows, columns]
    return np.where(right, s.ground_truth, paper)


def background_probability(scores: torch.Tensor) -> np.ndarray:
    """(N, 21, s, s) → (N,): the mean over a proposal's pixels."""
    return scores.float().softmax(dim=1)[:, 0].mean(dim=(1, 2)).cpu().numpy()


def biased(scores: torch.Tensor, bias: float) -> np.ndarray:
    """Aggregated scores (21, H, W) → the label map with `bias` added to the background's score."""
    shifted = scores.clone()
    shifted[0] += bias
    return labels(shifted)


def labels(scores: torch.Tensor) -> np.ndarray:
    return scores.argmax(dim=0).byte().cpu().numpy()


@torch.inference_mode()
def label_maps(
    net: nn.Module, example: tuple, objects: pd.DataFrame, proposals: np.ndarray, settings: Inference, chosen: Chosen
) -> dict[str, np.ndarray]:
    """The label map of one image with each part given or done otherwise. `example` is (image, labels, instances)."""
    s = score(net, example, objects, proposals, settings)
    aggregated = s.maximum()
    paper = labels(aggregated)
    own = extended(objects, settings)
    if len(own):
        on_objects = aggregate.score_proposals(net, example[0], own, settings.batch_size, settings.antialias)
    return {
        PAPER: paper,
        "boxes": labels(on_objects) if len(own) else np.zeros_like(paper),
        "hits": labels(s.maximum(s.overlap >= HIT)),
        "classes": labels(s.of(with_classes(s))),
        "shapes": labels(s.of(with_shapes(s))),
        "pixels": best_pixels(s, paper),
        "bias": biased(aggregated, chosen.bias),
        "rejection": labels(s.maximum(background_probability(s.scores) <= chosen.rejection)),
        "softmax": labels(s.of(s.scores.softmax(dim=1))),
        "mean": labels(s.mean()),
    }


@torch.inference_mode()
def choose(
    net: nn.Module, images: Images, objects: pd.DataFrame, proposals: dict[str, np.ndarray], settings: Inference
) -> tuple[Chosen, dict[str, dict[float, float]]]:
    """The bias and the rejection with the highest mean IoU on these images (dev), and the mean IoU of each."""
    of_image = by_image(objects)

    def task(name: str) -> dict[str, np.ndarray]:
        s = score(net, images[name], of_image(name), proposals[name], settings)
        aggregated, background = s.maximum(), background_probability(s.scores)
        found = {"bias": [biased(aggregated, bias) for bias in BIASES]}
        found["rejection"] = [labels(s.maximum(background <= limit)) for limit in REJECTIONS]
        return {what: np.stack([confusion(s.ground_truth, m) for m in maps]) for what, maps in found.items()}

    counted = list(parallel.thread_map(task, list(proposals), "choices on dev"))
    tried = {
        what: {value: mean_iou(matrix) for value, matrix in zip(values, sum(c[what] for c in counted), strict=True)}
        for what, values in (("bias", BIASES), ("rejection", REJECTIONS))
    }
    return Chosen(*(best(tried[what]) for what in ("bias", "rejection"))), tried


def best(tried: dict[float, float]) -> float:
    """The value with the highest mean IoU; the first of equal ones. Without ground truth the first."""
    return max(tried, key=lambda value: np.nan_to_num(tried[value], nan=-1.0))


def by_image(objects: pd.DataFrame) -> Callable[[str], pd.DataFrame]:
    groups, none = dict(tuple(objects.groupby("image"))), objects.iloc[:0]
    return lambda name: groups.get(name, none)


def diagnose(
    net: nn.Module, images: Images, objects: pd.DataFrame, proposals: dict[str, np.ndarray], settings: Inference,
    chosen: Chosen,
) -> PerImageCounts:  # fmt: skip
    """diagnosis/<part>: the counts of each image's label map, (images, 3, 21)."""
    of_image = by_image(objects)

    def task(name: str) -> PerImageCounts:
        found = label_maps(net, images[name], of_image(name), proposals[name], settings, chosen)
        return {part: per_image.image_counts(images[name][1], label_map) for part, label_map in found.items()}

    counted = list(parallel.thread_map(task, list(proposals), "diagnosis"))
    return {f"diagnosis/{part}": np.stack([c[part] for c in counted]) for part in counted[0]}


def summary(runs: list[PerImageCounts], resamples: int, seed: int) -> dict[str, dict]:
    """For each part: its title, whether the ground truth gives it, mean IoU and what it gains, each {value, ci,
    per_seed}, and the kinds of error as shares of all pixels.
    """
    images, kind = len(runs[0][f"diagnosis/{PAPER}"]), "diagnosis"
    found = {}
    for part, title in {PAPER: "as in the paper", **GIVEN, **OTHERWISE}.items():
        row = {"title": title, "given": part in GIVEN}
        measures = {"mean_iou": iou(part, kind), "gain": minus(iou(part, kind), iou(PAPER, kind))}
        measures |= {what: errors.share(what, part, kind) for what in errors.KINDS}
        for what, measure in measures.items():
            e = estimate(measure, runs, images, resamples, seed)
            row[what] = {"value": e.value, "ci": list(e.ci), "per_seed": list(e.per_seed)}
        found[part] = row
    return found

"""Where the errors are (beyond the paper): pixels missed, invented and confused, and precision and recall.

The paper reports mean IoU alone, which counts a pixel that is wrongly an object like one that wrongly is none.
"""

import numpy as np

from deconvnet.data import classes
from deconvnet.data.classes import VOID
from deconvnet.evaluation import bootstrap, measures
from deconvnet.evaluation.per_image import PerImageCounts

KINDS = {
    "missed": "an object in the ground truth, predicted as background",
    "invented": "background in the ground truth, predicted as an object",
    "confused": "an object in the ground truth, predicted as an object of another class",
}
POOLED = {
    "precision": "of the pixels predicted as objects, those with the right class",
    "recall": "of the objects' pixels, those with the right class",
}


def shares(summed: np.ndarray) -> dict[str, np.ndarray]:
    """(…, 3, classes) sums of per-image counts → for each of KINDS and POOLED, (…) in 0–1; NaN without pixels.

    The kinds of error are shares of all pixels that are not void.
    """
    hits, ground_truth, predicted = np.moveaxis(np.asarray(summed, float), -2, 0)
    pixels, right = ground_truth.sum(axis=-1), hits[..., 1:].sum(axis=-1)
    missed, invented = predicted[..., 0] - hits[..., 0], ground_truth[..., 0] - hits[..., 0]
    confused = pixels - hits.sum(axis=-1) - missed - invented
    with np.errstate(invalid="ignore"):
        return {
            "missed": missed / pixels,
            "invented": invented / pixels,
            "confused": confused / pixels,
            "precision": right / predicted[..., 1:].sum(axis=-1),
            "recall": right / ground_truth[..., 1:].sum(axis=-1),
        }


def share(what: str, method: str, kind: str = "counts") -> bootstrap.Measure:
    """A measure in %: one of `shares`, of a method's counts."""
    key = measures.key(kind, method)
    return lambda run, weights: 100 * shares(np.tensordot(weights, run[key].astype(float), axes=1))[what]


def per_class(counts: np.ndarray) -> dict[str, dict[str, float]]:
    """(images, 3, classes) counts → precision and recall of each class in 0–1; NaN where nothing is counted."""
    hits, ground_truth, predicted = counts.sum(axis=0, dtype=float)
    with np.errstate(invalid="ignore"):
        pairs = zip(classes.current().names, (hits / predicted).tolist(), (hits / ground_truth).tolist(), strict=True)
        return {name: {"precision": precision, "recall": recall} for name, precision, recall in pairs}


def all_measures(method: str) -> dict[str, bootstrap.Measure]:
    """KINDS, POOLED and the mean IoU of objects."""
    return {what: share(what, method) for what in (*KINDS, *POOLED)} | {"object_iou": measures.objects("iou", method)}


def compare(
    runs: list[PerImageCounts], first: str, second: str, resamples: int, seed: int
) -> dict[str, bootstrap.Estimate]:
    """By how many points one method's measures are above another's."""
    others, images = all_measures(second), len(runs[0][f"counts/{first}"])
    return {
        what: bootstrap.estimate(measures.minus(measure, others[what]), runs, images, resamples, seed)
        for what, measure in all_measures(first).items()
    }


def decompose(runs: list[PerImageCounts], methods: tuple[str, ...], resamples: int, seed: int) -> dict[str, dict]:
    """For each method: KINDS, POOLED and the mean IoU of objects, in %, each {value, ci, per_seed} by
    bootstrap.estimate; and precision and recall of each class, over all runs.
    """
    images, found = len(runs[0][f"counts/{methods[0]}"]), {}
    for method in methods:
        found[method] = {}
        for what, measure in all_measures(method).items():
            e = bootstrap.estimate(measure, runs, images, resamples, seed)
            found[method][what] = {"value": e.value, "ci": list(e.ci), "per_seed": list(e.per_seed)}
        found[method]["per_class"] = per_class(np.concatenate([run[f"counts/{method}"] for run in runs]))
    return found


def class_differences(
    runs: list[PerImageCounts], first: str, second: str, resamples: int, seed: int
) -> dict[str, bootstrap.Estimate]:
    """By how many points one method's IoU of each class is above another's."""
    images, found = len(runs[0][f"counts/{first}"]), {}
    for label, name in enumerate(classes.current().names):
        measure = measures.minus(measures.class_iou(first, label), measures.class_iou(second, label))
        found[name] = bootstrap.estimate(measure, runs, images, resamples, seed)
    return found


def error_map(ground_truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(H, W) label maps → (H, W) uint8: 0 right or void, 1 missed, 2 invented, 3 confused."""
    wrong = (ground_truth != predicted) & (ground_truth != VOID)
    return np.select([~wrong, predicted == 0, ground_truth == 0], [0, 1, 2], 3).astype(np.uint8)

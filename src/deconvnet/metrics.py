"""One measure for all methods: IoU from one confusion matrix over the whole set, and recall by object size."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from deconvnet import maps, parallel, voc
from deconvnet.errors import UserError
from deconvnet.params import Evaluation
from deconvnet.paths import VOC
from deconvnet.voc import CLASSES, VOID

SIZES = ("small", "medium", "large")
PER_CORE = 100  # images; with fewer, a further process takes longer to start than it saves


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int = len(CLASSES)) -> np.ndarray:
    """Counts of non-void pixels, (classes, classes): row truth, column prediction.

    Raises ValueError if the shapes differ or the prediction is not 0 … classes - 1.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"The prediction is {predicted.shape}, the truth {truth.shape}: they must have one size.")
    valid = truth != VOID
    truth, predicted = truth[valid].astype(int), predicted[valid].astype(int)
    if predicted.size and not 0 <= predicted.min() <= predicted.max() < classes:
        raise ValueError(f"The prediction holds {predicted.min()}…{predicted.max()}; classes are 0…{classes - 1}.")
    return np.bincount(classes * truth + predicted, minlength=classes**2).reshape(classes, classes)


def iou(matrix: np.ndarray) -> np.ndarray:
    """IoU of each class; NaN for one that neither truth nor prediction contains."""
    hits = np.diag(matrix).astype(float)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_iou(matrix: np.ndarray) -> float:
    """Mean over the classes that occur, NaN if none does."""
    values = iou(matrix)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def object_recall(truth: np.ndarray, instances: np.ndarray, predicted: np.ndarray, instance: int, label: int) -> float:
    """The share of an object's non-void pixels that are labelled with its class."""
    mask = (instances == instance) & (truth != VOID)
    return float((predicted[mask] == label).mean())


def size_bin(objects: pd.DataFrame, small: float, medium: float) -> pd.Series:
    """small, medium or large by √(box area) / √(image area)."""
    box = (objects["x2"] - objects["x1"]) * (objects["y2"] - objects["y1"])
    relative = np.sqrt(box / (objects["width"] * objects["height"]))
    return pd.cut(relative, [0, small, medium, np.inf], right=False, labels=SIZES)


def require_ids(method: str, names: list[str], others: list[str]) -> None:
    """Raises UserError unless there is a prediction of each of `names`, and of nothing else but some of `others`."""
    folder = maps.prediction_path(method, "any").parent
    found = {path.stem for path in folder.glob("*.png")}
    for what, ids in (("lacks", {*names} - found), ("has, unlisted,", found - {*names, *others})):
        if ids:
            shown = ", ".join(sorted(ids)[:5]) + (", …" if len(ids) > 5 else "")
            raise UserError(f"{folder} {what} {len(ids)} image(s): {shown}. Delete it, and run make repro again.")


def confusion_of(method: str, names: list[str]) -> np.ndarray:
    """One confusion matrix over a whole list of images."""

    def one(name: str) -> np.ndarray:
        return confusion(voc.read_labels(VOC, name), maps.read_prediction(method, name))

    return sum(parallel.over(one, names, f"confusion of {method}", least=PER_CORE))


@dataclass(frozen=True)
class Result:
    """What a method reaches on a split; fractions throughout."""

    summary: dict[str, float]  # mean_iou, recall_small, recall_medium, recall_large
    per_class: dict[str, float]  # IoU of each class, and "mean"


def evaluate(method: str, names: list[str], objects: pd.DataFrame, settings: Evaluation) -> Result:
    """`objects` are those of the split. An object of void pixels only counts for no recall."""
    objects = objects.sort_values("image", kind="stable")  # the order of the recalls below; VOC's test has none
    of_image = {name: group[["instance", "label"]].to_numpy() for name, group in objects.groupby("image")}

    def one(item: tuple[str, np.ndarray]) -> tuple[np.ndarray, list[float]]:
        name, rows = item
        truth, predicted = voc.read_labels(VOC, name), maps.read_prediction(method, name)
        instances = voc.read_instances(VOC, name) if len(rows) else None
        return confusion(truth, predicted), [object_recall(truth, instances, predicted, *row) for row in rows]

    items = [(name, of_image.get(name, [])) for name in names]
    found = dict(zip(names, parallel.over(one, items, f"evaluation of {method}", least=PER_CORE), strict=True))
    matrix = sum(counts for counts, _ in found.values())
    recalls = [recall for name in of_image for recall in found[name][1]]
    by_size = (
        pd.Series(recalls, dtype=float).groupby(size_bin(objects, settings.small, settings.medium).to_numpy()).mean()
    )
    per_class = dict(zip(voc.CLASSES, iou(matrix).tolist(), strict=True))
    mean = mean_iou(matrix)
    summary = {"mean_iou": mean} | {f"recall_{size}": float(by_size.get(size, np.nan)) for size in SIZES}
    return Result(summary, per_class | {"mean": mean})

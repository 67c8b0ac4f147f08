"""The measures of all methods (section 6.2): IoU from one confusion matrix over a set, and recall by object size."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from deconvnet.config.errors import UserError
from deconvnet.config.paths import VOC
from deconvnet.config.schema import Evaluation
from deconvnet.data import classes, voc
from deconvnet.data.classes import VOID
from deconvnet.images import store
from deconvnet.utils import parallel

MIN_IMAGES_PER_WORKER = 100  # with fewer, a further process takes longer to start than it saves


def confusion(ground_truth: np.ndarray, predicted: np.ndarray, number: int | None = None) -> np.ndarray:
    """Counts of non-void pixels, (classes, classes): row ground truth, column prediction. `number` is that of the
    classes, by default of this run's.

    Raises ValueError if the shapes differ or the prediction is not a class.
    """
    if ground_truth.shape != predicted.shape:
        raise ValueError(
            f"The prediction is {predicted.shape}, the ground truth {ground_truth.shape}: they must have one size."
        )
    number = number or len(classes.current())
    valid = ground_truth != VOID
    ground_truth, predicted = ground_truth[valid].astype(int), predicted[valid].astype(int)
    if predicted.size and not 0 <= predicted.min() <= predicted.max() < number:
        raise ValueError(f"The prediction holds {predicted.min()}…{predicted.max()}; classes are 0…{number - 1}.")
    return np.bincount(number * ground_truth + predicted, minlength=number**2).reshape(number, number)


def iou(matrix: np.ndarray) -> np.ndarray:
    """IoU of each class; NaN for one that neither ground truth nor prediction contains."""
    hits = np.diag(matrix).astype(float)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_iou(matrix: np.ndarray) -> float:
    """Mean over the classes that occur, NaN if none does."""
    values = iou(matrix)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def object_recall(
    ground_truth: np.ndarray, instances: np.ndarray, predicted: np.ndarray, instance: int, label: int
) -> float:
    """The share of an object's non-void pixels that are labelled with its class."""
    mask = (instances == instance) & (ground_truth != VOID)
    return float((predicted[mask] == label).mean())


def require_ids(method: str, names: list[str], others: list[str]) -> None:
    """Raises UserError unless there is a label map for each of `names`, and for nothing else but some of `others`."""
    folder = store.prediction_path(method, "any").parent
    found = {path.stem for path in folder.glob("*.png")}
    for what, ids in (("lacks", {*names} - found), ("has, unlisted,", found - {*names, *others})):
        if ids:
            shown = ", ".join(sorted(ids)[:5]) + (", …" if len(ids) > 5 else "")
            raise UserError(f"{folder} {what} {len(ids)} image(s): {shown}. Delete it, and run make repro again.")


def method_confusion(method: str, names: list[str]) -> np.ndarray:
    """One confusion matrix over a whole list of images."""

    def task(name: str) -> np.ndarray:
        return confusion(voc.read_labels(VOC, name), store.read_prediction(method, name))

    desc = f"confusion of {method}"
    return sum(parallel.process_map(task, names, desc, min_items_per_worker=MIN_IMAGES_PER_WORKER))


@dataclass(frozen=True)
class Result:
    """A method's numbers on a split, as fractions."""

    summary: dict[str, float]  # mean_iou, recall_small, recall_medium, recall_large
    per_class: dict[str, float]  # IoU of each class, and "mean"


def evaluate(method: str, names: list[str], objects: pd.DataFrame, settings: Evaluation) -> Result:
    """A method's label maps against the ground truth. `objects` are of the split; void ones are left out."""
    objects = objects.sort_values("image", kind="stable")  # the order of the recalls below
    of_image = {name: group[["instance", "label"]].to_numpy() for name, group in objects.groupby("image")}

    def task(item: tuple[str, np.ndarray]) -> tuple[np.ndarray, list[float]]:
        name, rows = item
        ground_truth, predicted = voc.read_labels(VOC, name), store.read_prediction(method, name)
        instances = voc.read_instances(VOC, name) if len(rows) else None
        return confusion(ground_truth, predicted), [
            object_recall(ground_truth, instances, predicted, *row) for row in rows
        ]

    items = [(name, of_image.get(name, [])) for name in names]
    done = parallel.process_map(task, items, f"evaluation of {method}", min_items_per_worker=MIN_IMAGES_PER_WORKER)
    found = dict(zip(names, done, strict=True))
    matrix = sum(counts for counts, _ in found.values())
    recalls = [recall for name in of_image for recall in found[name][1]]
    sizes = voc.size_bin(objects, settings.small, settings.medium).to_numpy()
    by_size = pd.Series(recalls, dtype=float).groupby(sizes).mean()
    per_class = dict(zip(classes.current().names, iou(matrix).tolist(), strict=True))
    mean = mean_iou(matrix)
    summary = {"mean_iou": mean} | {f"recall_{size}": float(by_size.get(size, np.nan)) for size in voc.SIZES}
    return Result(summary, per_class | {"mean": mean})

"""What intervals are made from: counts for each image, so that a set of images can be drawn again and measured anew.

A tally is (images, 3, classes): pixels of each class that are hit, in the truth, and predicted. It is what mean IoU
needs of a confusion matrix: its diagonal and its two margins.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from deconvnet import boxes, maps, parallel, voc
from deconvnet.metrics import PER_CORE, confusion
from deconvnet.paths import VOC
from deconvnet.voc import CLASSES, VOID

Samples = dict[str, np.ndarray]


def tally(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(3, 21) of one image; what metrics.confusion refuses is refused here."""
    matrix = confusion(truth, predicted)
    return np.stack([np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)]).astype(np.uint32)


def tallies(names: list[str], truth: Callable, predicted: Callable) -> np.ndarray:
    """(images, 3, 21); `truth` and `predicted` give the label map of a name."""
    return np.stack([tally(truth(name), predicted(name)) for name in names])


def mean_iou(summed: np.ndarray) -> np.ndarray:
    """(…, 3, classes) sums of tallies → (…) mean IoU over the classes that occur, NaN if none does."""
    hits, truth, predicted = np.moveaxis(np.asarray(summed, float), -2, 0)
    union = truth + predicted - hits
    iou = np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)
    counted = np.isfinite(iou)
    total = np.where(counted, iou, 0).sum(axis=-1)
    return np.divide(total, counted.sum(axis=-1), out=np.full(total.shape, np.nan), where=counted.any(axis=-1))


def background(tally: np.ndarray) -> float:
    """The share, in %, of the pixels of a tally of images that are predicted as background; NaN without pixels."""
    predicted = tally[:, 2].sum(axis=0, dtype=float)
    return 100 * float(predicted[0] / predicted.sum()) if predicted.any() else float("nan")


def write(path: Path, samples: Samples) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **samples)


def read(path: Path) -> Samples:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def near_contours(labels: np.ndarray, instances: np.ndarray, width: int) -> np.ndarray:
    """`labels` within `width` px of a contour between objects, background and void; void everywhere else."""
    edges = np.zeros(labels.shape, np.uint8)
    across, down = instances[:, 1:] != instances[:, :-1], instances[1:] != instances[:-1]
    for part, differs in ((edges[:, 1:], across), (edges[:, :-1], across), (edges[1:], down), (edges[:-1], down)):
        part[differs] = 1
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    return np.where(cv2.dilate(edges, around) > 0, labels, VOID).astype(np.uint8)


def object_iou(labels: np.ndarray, instances: np.ndarray, predicted: np.ndarray, obj, window: np.ndarray) -> float:
    """IoU of one object with what is labelled as its class in `window` around it, NaN if it is void only.

    Void and other objects of the class count for nothing.
    """
    x1, y1, x2, y2 = np.maximum(window, 0)
    labels, instances, predicted = (m[y1:y2, x1:x2] for m in (labels, instances, predicted))
    mine = (instances == obj.instance) & (labels != VOID)
    other = (labels == VOID) | ((labels == obj.label) & ~mine)
    named = (predicted == obj.label) & ~other
    return float((mine & named).sum() / (mine | named).sum()) if mine.any() else float("nan")


def of_objects(names: list[str], objects: pd.DataFrame, methods: tuple[str, ...]) -> Samples:
    """Of each object that is not void only: image (its index), size (side of its box to that of the image), label;
    recall and IoU by each method, the share of its pixels that get another object's class, and the label of most.
    """
    index = {name: i for i, name in enumerate(names)}
    windows = boxes.extend(objects[["x1", "y1", "x2", "y2"]].to_numpy(), 1.2, square=False)

    def one(item: tuple[str, int, pd.DataFrame, np.ndarray]) -> list[dict]:
        name, number, group, around = item
        labels, instances = voc.read_labels(VOC, name), voc.read_instances(VOC, name)
        predictions = {method: maps.read_prediction(method, name) for method in methods}
        rows = []
        for o, window in zip(group.itertuples(), around, strict=True):
            mine = (instances == o.instance) & (labels != VOID)
            if not mine.any():
                continue
            side = np.sqrt((o.x2 - o.x1) * (o.y2 - o.y1) / (o.width * o.height))
            row = {"image": number, "size": side, "label": o.label}
            for method, predicted in predictions.items():
                row[f"recall/{method}"] = (predicted[mine] == o.label).mean()
                row[f"iou/{method}"] = object_iou(labels, instances, predicted, o, window)
                row[f"other/{method}"] = ((predicted[mine] != o.label) & (predicted[mine] != 0)).mean()
                row[f"named/{method}"] = np.bincount(predicted[mine], minlength=len(CLASSES)).argmax()
            rows.append(row)
        return rows

    groups = objects.groupby("image")
    items = [(name, index[name], group, windows[groups.indices[name]]) for name, group in groups]
    rows = [row for found in parallel.over(one, items, "objects", least=PER_CORE) for row in found]
    measures = ("recall", "iou", "other", "named")
    columns = ["image", "size", "label", *(f"{what}/{m}" for what in measures for m in methods)]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[3:], float))
    table = table.astype({"image": int, "size": float, "label": int})
    return {f"objects/{key}": value.to_numpy() for key, value in table.items()}


def of_methods(names: list[str], objects: pd.DataFrame, methods: tuple[str, ...], contour: int) -> Samples:
    """All that the ledger needs of label maps: tallies over whole images, tallies near contours, and the objects."""

    def one(name: str) -> np.ndarray:
        truth, instances = voc.read_labels(VOC, name), voc.read_instances(VOC, name)
        predicted = [maps.read_prediction(method, name) for method in methods]
        return np.stack([[tally(t, p) for p in predicted] for t in (truth, near_contours(truth, instances, contour))])

    counted = np.stack(list(parallel.over(one, names, "tallies", least=PER_CORE)))  # (images, 2, methods, 3, 21)
    found = {}
    for i, method in enumerate(methods):
        found[f"tally/{method}"], found[f"contour/{method}"] = counted[:, 0, i].copy(), counted[:, 1, i].copy()
    return found | of_objects(names, objects, methods)

"""Counts for each image of val, from which intervals are made: any resample of the images can be measured again.

Pixel counts are (images, 3, classes): correct, in the ground truth, and predicted as each class. Of a confusion matrix
they are the diagonal and the two margins, which is what mean IoU needs.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from deconvnet.config.paths import VOC
from deconvnet.data import voc
from deconvnet.data.classes import VOID
from deconvnet.evaluation.metrics import MIN_IMAGES_PER_WORKER, confusion
from deconvnet.images import boxes, store
from deconvnet.images.boxes import BOX
from deconvnet.utils import parallel

PerImageCounts = dict[str, np.ndarray]


def image_counts(ground_truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The counts of one image, (3, classes). Raises ValueError as metrics.confusion does."""
    matrix = confusion(ground_truth, predicted)
    return np.stack([np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)]).astype(np.uint32)


def mean_iou(summed: np.ndarray) -> np.ndarray:
    """(…, 3, classes) sums of counts → (…) mean IoU over the classes that occur, NaN if none does."""
    hits, ground_truth, predicted = np.moveaxis(np.asarray(summed, float), -2, 0)
    union = ground_truth + predicted - hits
    iou = np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)
    counted = np.isfinite(iou)
    total = np.where(counted, iou, 0).sum(axis=-1)
    return np.divide(total, counted.sum(axis=-1), out=np.full(total.shape, np.nan), where=counted.any(axis=-1))


def background_share(counts: np.ndarray) -> float:
    """The share, in %, of pixels predicted as background, from (images, 3, classes) counts; NaN without pixels."""
    predicted = counts[:, 2].sum(axis=0, dtype=float)
    return 100 * float(predicted[0] / predicted.sum()) if predicted.any() else float("nan")


def save(path: Path, counts: PerImageCounts) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **counts)


def load(path: Path) -> PerImageCounts:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def near_boundaries(labels: np.ndarray, instances: np.ndarray, width: int) -> np.ndarray:
    """`labels` within `width` px of a boundary between objects, background and void; void everywhere else."""
    edges = np.zeros(labels.shape, np.uint8)
    across, down = instances[:, 1:] != instances[:, :-1], instances[1:] != instances[:-1]
    for part, differs in ((edges[:, 1:], across), (edges[:, :-1], across), (edges[1:], down), (edges[:-1], down)):
        part[differs] = 1
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    return np.where(cv2.dilate(edges, around) > 0, labels, VOID).astype(np.uint8)


def object_iou(labels: np.ndarray, instances: np.ndarray, predicted: np.ndarray, obj, around: np.ndarray) -> float:
    """IoU of one object with what is labelled as its class in the box `around` it, NaN if it is void only.

    Void and other objects of the class are left out.
    """
    x1, y1, x2, y2 = np.maximum(around, 0)
    labels, instances, predicted = (m[y1:y2, x1:x2] for m in (labels, instances, predicted))
    mine = (instances == obj.instance) & (labels != VOID)
    ignored = (labels == VOID) | ((labels == obj.label) & ~mine)
    labelled = (predicted == obj.label) & ~ignored
    return float((mine & labelled).sum() / (mine | labelled).sum()) if mine.any() else float("nan")


Read = Callable[[str, str], np.ndarray]  # (method, image) → label map (H, W)


def object_counts(
    names: list[str], objects: pd.DataFrame, methods: tuple[str, ...], width: int, read: Read
) -> PerImageCounts:
    """For each object that is not void: image (index), size (√ of box area / image area), label; and by each method its
    recall, its IoU, its IoU within `width` px of boundaries (contour), the share of its pixels with another object's
    class (other), and the label of most of its pixels (majority).
    """
    index = {name: i for i, name in enumerate(names)}
    regions = boxes.extend(objects[BOX].to_numpy(), 1.2, square=False)

    def task(item: tuple[str, int, pd.DataFrame, np.ndarray]) -> list[dict]:
        name, number, group, regions = item
        labels, instances = voc.read_labels(VOC, name), voc.read_instances(VOC, name)
        near = near_boundaries(labels, instances, width)
        predictions = {method: read(method, name) for method in methods}
        rows = []
        for o, around in zip(group.itertuples(), regions, strict=True):
            mine = (instances == o.instance) & (labels != VOID)
            if not mine.any():
                continue
            side = np.sqrt((o.x2 - o.x1) * (o.y2 - o.y1) / (o.width * o.height))
            row = {"image": number, "size": side, "label": o.label}
            for method, predicted in predictions.items():
                row[f"recall/{method}"] = (predicted[mine] == o.label).mean()
                row[f"iou/{method}"] = object_iou(labels, instances, predicted, o, around)
                row[f"contour/{method}"] = object_iou(near, instances, predicted, o, around)
                row[f"other/{method}"] = ((predicted[mine] != o.label) & (predicted[mine] != 0)).mean()
                row[f"majority/{method}"] = np.bincount(predicted[mine]).argmax()
            rows.append(row)
        return rows

    groups = objects.groupby("image")
    items = [(name, index[name], group, regions[groups.indices[name]]) for name, group in groups]
    done = parallel.process_map(task, items, "objects", min_items_per_worker=MIN_IMAGES_PER_WORKER)
    rows = [row for found in done for row in found]
    measures = ("recall", "iou", "contour", "other", "majority")
    columns = ["image", "size", "label", *(f"{what}/{m}" for what in measures for m in methods)]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[3:], float))
    table = table.astype({"image": int, "size": float, "label": int})
    return {f"objects/{key}": value.to_numpy() for key, value in table.items()}


def method_counts(
    names: list[str], objects: pd.DataFrame, methods: tuple[str, ...], width: int, read: Read = store.read_prediction
) -> PerImageCounts:
    """All that the claims need of label maps: pixel counts over whole images and within `width` px of boundaries, and
    objects.
    """

    def task(name: str) -> np.ndarray:
        ground_truth, instances = voc.read_labels(VOC, name), voc.read_instances(VOC, name)
        predicted = [read(method, name) for method in methods]
        targets = ground_truth, near_boundaries(ground_truth, instances, width)
        return np.stack([[image_counts(target, p) for p in predicted] for target in targets])

    done = parallel.process_map(task, names, "pixel counts", min_items_per_worker=MIN_IMAGES_PER_WORKER)
    counted = np.stack(list(done))  # (images, 2, methods, 3, classes)
    found = {}
    for i, method in enumerate(methods):
        found[f"counts/{method}"], found[f"boundary/{method}"] = counted[:, 0, i].copy(), counted[:, 1, i].copy()
    return found | object_counts(names, objects, methods, width, read)

"""Which images the paper's qualitative figures show: selected by rules, never by hand."""

import numpy as np
import pandas as pd

from deconvnet.config.paths import VOC
from deconvnet.data import voc
from deconvnet.evaluation import per_image
from deconvnet.evaluation.per_image import PerImageCounts
from deconvnet.images import store
from deconvnet.images.boxes import box_iou
from deconvnet.report.figures import Labelled


def row(name: str, methods: list[str]) -> list[np.ndarray]:
    """The image, its ground truth and the label maps of some methods."""
    predicted = [store.read_prediction(method, name) for method in methods]
    return [voc.read_image(VOC, name), voc.read_labels(VOC, name), *predicted]


def labelled_row(name: str, methods: list[str]) -> list[np.ndarray | Labelled]:
    """The same for figures.grid: label maps over the image, with each method's mean IoU on it."""
    image, ground_truth, *predicted = row(name, methods)
    found = [per_image.mean_iou(per_image.image_counts(ground_truth, labels)) for labels in predicted]
    notes = [f"mean IoU {100 * iou:.0f} %" if np.isfinite(iou) else "no ground truth" for iou in found]
    shown = [Labelled(image, labels, note) for labels, note in zip(predicted, notes, strict=True)]
    return [image, Labelled(image, ground_truth), *shown]


def figure1(run: PerImageCounts, names: list[str], small: float, large: float, rows: int) -> dict[str, str]:
    """{image: why}: (a) images with a large object that FCN-8s labels inconsistently, part of it as what it is, part as
    another object: the smaller of both shares is largest; (b) those with the most small objects of which it finds no
    pixel.
    """
    table = pd.DataFrame({key: run[f"objects/{key}"] for key in ("image", "size", "recall/fcn8s", "other/fcn8s")})
    shares = table[["recall/fcn8s", "other/fcn8s"]]
    broken = table[table["size"] >= large].assign(both=shares.min(axis=1)).query("both > 0")
    broken = broken.sort_values("both", ascending=False, kind="stable").drop_duplicates("image").head(rows)
    missed = table[(table["size"] < small) & (table["recall/fcn8s"] == 0)]["image"].value_counts()
    missed = missed.sort_index().sort_values(ascending=False, kind="stable").head(rows)
    found = broken.set_index("image")[["recall/fcn8s", "other/fcn8s"]]
    chosen = {
        names[i]: f"(a) {100 * right:.0f} % right,\n{100 * other:.0f} % another"
        for i, right, other in found.itertuples()
    }
    return chosen | {names[i]: f"(b) {n} small missed" for i, n in missed.items() if names[i] not in chosen}


def largest(objects: pd.DataFrame, label: int) -> str | None:
    """The image with the largest object of a class, None if there is no such object."""
    found = objects[objects["label"] == label].sort_values("pixels", ascending=False, kind="stable")
    return None if found.empty else found["image"].iloc[0]


def figure7(run: PerImageCounts, names: list[str], rows: int) -> dict[str, list[str]]:
    """Groups of `rows` images by the mean IoU of single images: where DeconvNet is further above FCN-8s than anywhere
    else, where it is further below, and where the ensemble is furthest above both; and as many drawn at random from the
    others. No image is in two.
    """
    iou = {m: per_image.mean_iou(run[f"counts/{m}"]) for m in ("fcn8s", "deconvnet", "edeconvnet")}
    gaps = {
        "(a) DeconvNet\nbetter": iou["deconvnet"] - iou["fcn8s"],
        "(b) FCN-8s\nbetter": iou["fcn8s"] - iou["deconvnet"],
        "(c) ensemble\nabove both": iou["edeconvnet"] - np.maximum(iou["fcn8s"], iou["deconvnet"]),
    }
    groups, taken = {}, set()
    for title, gap in gaps.items():
        order = [i for i in np.argsort(-np.nan_to_num(gap, nan=-1), kind="stable") if gap[i] > 0 and i not in taken]
        groups[title] = [names[i] for i in order[:rows]]
        taken |= set(order[:rows])
    others = [i for i in range(len(names)) if i not in taken]
    drawn = np.random.default_rng(0).permutation(others)[:rows]
    return groups | {"(d) drawn\nat random": [names[i] for i in drawn]}


def nearest_median(iou: np.ndarray, names: list[str], rows: int) -> list[str]:
    """The images whose value is nearest to the median of all, NaN left out."""
    distance = np.abs(iou - np.nanmedian(iou)) if np.isfinite(iou).any() else iou
    return [names[i] for i in np.argsort(distance, kind="stable") if np.isfinite(distance[i])][:rows]


def highest(iou: np.ndarray, names: list[str]) -> str | None:
    """The image with the highest value, None if none has one."""
    return names[int(np.nanargmax(iou))] if np.isfinite(iou).any() else None


def lowest(iou: np.ndarray, names: list[str], rows: int) -> list[str]:
    """The images with the lowest values, NaN left out."""
    return [names[i] for i in np.argsort(iou, kind="stable") if np.isfinite(iou[i])][:rows]


def apart(boxes: np.ndarray, values: np.ndarray, number: int) -> list[int]:
    """The indices of up to `number` boxes (N, 4) with the highest values whose IoU with each other is below 0.3."""
    overlap, chosen = box_iou(boxes, boxes), []
    for i in np.argsort(-values, kind="stable"):
        if len(chosen) < number and all(overlap[i, j] < 0.3 for j in chosen):
            chosen.append(int(i))
    return chosen

"""The paper's figures 1, 5, 6 and 7: images that selection.py picks, in rows."""

import cv2
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from deconvnet.data import classes
from deconvnet.evaluation import errors, per_image
from deconvnet.evaluation.methods import METHODS
from deconvnet.evaluation.per_image import PerImageCounts
from deconvnet.inference import ensemble
from deconvnet.report import figures, selection

ERRORS = {"missed": figures.LINES[0], "invented": figures.LINES[1], "confused": figures.LINES[4]}


def figure1(run: PerImageCounts, names: list[str], small: float, large: float, rows: int) -> Figure:
    """The limits of FCN, and DeconvNet's answer."""
    why = selection.figure1(run, names, small, large, rows)
    shown = [selection.labelled_row(name, ["fcn8s", "deconvnet"]) for name in why]
    columns, titles = ["image", "ground truth", "FCN-8s", "DeconvNet"], [f"{n}\n{w}" for n, w in why.items()]
    return figures.grid(shown, columns, titles)


def figure5(objects: pd.DataFrame, kinds: list[str]) -> Figure:
    """The probability of a class by both networks, where val has its largest object. Where the data set has none of
    `kinds`, its first classes.
    """
    names = classes.current().names
    kinds = [kind for kind in kinds if kind in names] or names[1 : 1 + len(kinds)]
    found = {kind: selection.largest(objects, names.index(kind)) for kind in kinds}
    found = {kind: name for kind, name in found.items() if name}
    rows = []
    for kind, name in found.items():
        pair = [ensemble.method_probabilities(m, name, "mean")[names.index(kind)] for m in ("fcn8s", "deconvnet")]
        rows.append([*selection.row(name, []), *(figures.heat(probability) for probability in pair)])
    titles = [f"{kind}\n{name}" for kind, name in found.items()]
    figure = figures.grid(rows, ["image", "ground truth", "FCN-8s", "DeconvNet"], titles)
    figures.add_colour_bar(figure, 2, "probability of the class")
    return figure


def figure6(rows: list[list[np.ndarray]], counts: list[int], names: list[str]) -> Figure:
    """The rows of proposal_study.figure6_row under the numbers of proposals."""
    grown = [f"{n} proposal{'s' * (n > 1)}" for n in counts]
    shown = [[image, *(figures.Labelled(image, labels) for labels in maps)] for image, *maps in rows]
    return figures.grid(shown, ["image", *grown, "ground truth"], names, 1.6)


def figure7(run: PerImageCounts, names: list[str], rows: int) -> Figure:
    """Groups of `rows` images, without and with the ensemble and the CRF; below each result its mean IoU there."""
    methods = ["fcn8s", "deconvnet", "edeconvnet", "edeconvnet_crf"]
    groups = selection.figure7(run, names, rows)
    shown = [selection.labelled_row(name, methods) for group in groups.values() for name in group]
    titles = [f"{title}\n{name}" for title, group in groups.items() for name in group]
    return figures.grid(shown, ["image", "ground truth", *(METHODS[m] for m in methods)], titles, 1.9)


def overlay_errors(image: np.ndarray, ground_truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The photograph in grey, with the kinds of error in the colours of ERRORS."""
    kinds = errors.error_map(ground_truth, predicted)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    colours = np.array([(0, 0, 0), *(to_rgb(colour) for colour in ERRORS.values())])
    return np.where(kinds[..., None] > 0, 255 * colours[kinds], grey).astype(np.uint8)


def add_error_legend(figure: Figure) -> None:
    patches = [Patch(color=colour, label=f"{kind}: {errors.KINDS[kind]}") for kind, colour in ERRORS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=1, fontsize=7, frameon=False)


def figure7_errors(run: PerImageCounts, names: list[str], rows: int) -> Figure:
    """The same images: where each method errs, and how."""
    methods = ["fcn8s", "deconvnet", "edeconvnet", "edeconvnet_crf"]
    chosen = [name for group in selection.figure7(run, names, rows).values() for name in group]
    shown = []
    for image, ground_truth, *predicted in (selection.row(name, methods) for name in chosen):
        shown.append([image, *(overlay_errors(image, ground_truth, p) for p in predicted)])
    figure = figures.grid(shown, ["image", *(METHODS[m] for m in methods)], chosen, 1.9)
    add_error_legend(figure)
    return figure


def failures(run: PerImageCounts, names: list[str], method: str, rows: int) -> Figure:
    """The images of val where a method's mean IoU is lowest, and how it errs there."""
    worst = selection.lowest(per_image.mean_iou(run[f"counts/{method}"]), names, rows)
    shown = []
    for name in worst:
        image, ground_truth, predicted = selection.labelled_row(name, [method])
        wrong = overlay_errors(image, ground_truth.labels, predicted.labels)
        shown.append([image, ground_truth, predicted, wrong])
    figure = figures.grid(shown, ["image", "ground truth", METHODS[method], "errors"], worst)
    add_error_legend(figure)
    return figure


def method(
    image: np.ndarray,
    boundaries: np.ndarray,
    boxes: np.ndarray,
    windows: list[np.ndarray],
    results: dict[str, np.ndarray],
) -> Figure:
    """The method on one image, step by step: boundaries (H, W) in 0–1, the boxes (N, 4) of the proposals, the first of
    them with the label maps of `windows`, and the label maps of the whole image by their titles.
    """
    label_maps = [*windows, *results.values()]
    panels = [image, figures.grey(boundaries), image, *(figures.Labelled(image, labels) for labels in label_maps)]
    titles = ["image", "boundaries", f"{len(boxes)} proposals", *["DeconvNet on one of them"] * len(windows), *results]
    half = (len(panels) + 1) // 2
    panels += [np.full_like(image, 255)] * (2 * half - len(panels))
    figure = figures.grid([panels[:half], panels[half:]], [""] * half)
    for axis, title in zip(figure.axes, titles, strict=False):
        axis.set_title(title, fontsize=9)
    for axis, drawn in zip(figure.axes[2:], [boxes, *(box[None] for box in boxes[: len(windows)])], strict=False):
        figures.draw_boxes(axis, drawn)
    return figure

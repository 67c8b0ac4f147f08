"""The pictures of the notebooks and of reports/figures, the same byte for byte each time.

Titles and captions may hold ids: a $ begins no formula there, and they may be long or in any script.
"""

from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from deconvnet.data import classes
from deconvnet.data.classes import VOID
from deconvnet.data.voc import colorize

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")  # Okabe and Ito: distinct for colour-blind readers
HEAT = "viridis"
NAMED = 0.01  # share of an image from which on a region has its class written on it


def save(figure: Figure, path: Path, caption: str = "") -> None:
    """Writes a PNG; `caption` (data set, split, seeds, experiment) goes below the figure and into the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if caption:
        figure.draw_without_rendering()
        lowest = figure.get_tightbbox().y0 - 0.06  # inches
        figure.set_layout_engine("none")  # the canvas grows by the caption; layout and legends must not move
        for legend in figure.legends:
            legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
        lines = fill(with_glyphs(caption), max(int(16 * figure.get_figwidth()), 40))  # characters of 8 pt to an inch
        options = {"fontsize": 8, "color": "0.2", "ha": "center", "va": "top", "parse_math": False}
        figure.text(0.5, lowest / figure.get_figheight(), lines, **options)
    metadata = {"Software": None, "Description": caption or None}
    figure.savefig(path, dpi=110, metadata=metadata, bbox_inches="tight", pad_inches=0.08)


def with_glyphs(text: str) -> str:
    """`text` with escapes for the letters that matplotlib's font lacks: it would draw the same box for all of them."""
    font = get_font(findfont(FontProperties()))
    return "".join(c if c == "\n" or font.get_char_index(ord(c)) else ascii(c)[1:-1] for c in text)


def title_of(text: str) -> str:
    """`text` as a title: of long lines the middle is left out."""
    lines = with_glyphs(text).split("\n")
    return "\n".join(line if len(line) <= 36 else f"{line[:20]}…{line[-15:]}" for line in lines)


def say_if_empty(axis: plt.Axes, values: list[float] | None = None) -> None:
    """Writes into a diagram without a number that there is none: val has no ground truth, or no object. `values` are
    its numbers, if they are not the heights of its lines.
    """
    if values is None:
        values = [y for line in axis.lines for y in line.get_ydata()]
    if not np.isfinite(np.asarray(values, float)).any():
        axis.set(xticks=[], yticks=[])
        options = {"ha": "center", "fontsize": 9, "bbox": {"facecolor": "white", "linewidth": 0}}
        axis.text(0.5, 0.5, "Val has nothing to measure this on.", transform=axis.transAxes, **options)


class Labelled(NamedTuple):
    """A label map to be drawn over its photograph, with the names of its classes and a note below it."""

    image: np.ndarray
    labels: np.ndarray
    note: str = ""


def grid(
    rows: list[list[np.ndarray | Labelled]], columns: list[str], titles: list[str] | None = None, width: float = 2.2
) -> Figure:
    """Pictures in rows under column headings; 2-D arrays are label maps, in their classes' colours. No rows: a line."""
    if not rows:
        figure = plt.figure(figsize=(width * max(len(columns), 2), 0.6))
        figure.text(0.5, 0.5, "No image fits the rule of this figure.", ha="center", va="center", fontsize=9)
        return figure
    first = rows[0][0].labels if isinstance(rows[0][0], Labelled) else rows[0][0]
    height = width * first.shape[0] / first.shape[1] + 0.2 * any(isinstance(p, Labelled) and p.note for p in rows[0])
    size = (width * len(columns), height * len(rows) + 0.6)
    figure, axes = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False, layout="constrained")
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            if isinstance(picture, Labelled):
                draw_labels(axes[i, j], picture)
            else:
                axes[i, j].imshow(colorize(picture) if picture.ndim == 2 else picture, interpolation="nearest")
            axes[i, j].set(xticks=[], yticks=[])
        if titles:
            axes[i, 0].set_ylabel(title_of(titles[i]), fontsize=8, parse_math=False)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title_of(title), fontsize=9, parse_math=False)
    return figure


def add_legend(figure: Figure, labels: list[np.ndarray]) -> None:
    """Names the classes that occur in the label maps, in their colours, below the figure."""
    shown = [int(c) for c in sorted(set().union(*(np.unique(m) for m in labels))) if c != VOID]
    if shown:
        names = classes.current().names
        add_key(figure, {names[c]: colorize(np.array([[c]], np.uint8))[0, 0] / 255 for c in shown})


def add_key(figure: Figure, colours: dict[str, str | np.ndarray]) -> None:
    """Says below the figure what its colours mean, {name: colour}; as many to a line as it has room for."""
    patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
    columns = min(8, max(int(1.2 * figure.get_figwidth()), 2))
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=7, frameon=False)


def add_colour_bar(figure: Figure, columns: int, label: str) -> None:
    """Beside a grid whose last `columns` columns are `heat` pictures: which colour is which value from 0 to 1."""
    if figure.axes:
        shape = figure.axes[0].get_gridspec()
        axes = np.array(figure.axes).reshape(shape.nrows, shape.ncols)[:, -columns:]
        figure.colorbar(ScalarMappable(cmap=HEAT), ax=axes.ravel().tolist(), label=label, aspect=30)


def curve(rows: pd.DataFrame, title: str) -> Figure:
    """Loss against iterations, on the left axis; the learning rate's factor on the right."""
    figure, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
    axis.plot(rows["step"], rows["loss"], color=LINES[0], label="training batches")
    validation = rows.dropna(subset=["dev_loss"]) if "dev_loss" in rows else rows.iloc[:0]
    if len(validation):
        axis.plot(validation["step"], validation["dev_loss"], "o--", color=LINES[1], label="dev batches")
    axis.set(xlabel="iterations", ylabel="loss", title=title)
    axis.legend(loc="upper right", frameon=False)
    other = axis.twinx()
    other.plot(rows["step"], rows["lr"], color="0.7", lw=1)
    other.set_ylabel("learning rate", color="0.5")
    axis.set_zorder(other.get_zorder() + 1)
    axis.patch.set_visible(False)
    return figure


def boxes_on(images: list[np.ndarray], drawn: list[np.ndarray], titles: list[str]) -> Figure:
    """Each image with boxes (N, 4) over it."""
    figure, axes = plt.subplots(1, len(images), figsize=(3 * len(images), 2.6), squeeze=False, layout="constrained")
    for axis, image, boxes, title in zip(axes[0], images, drawn, titles, strict=True):
        axis.imshow(image)
        draw_boxes(axis, boxes)
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=9)
    return figure


def draw_boxes(axis: plt.Axes, boxes: np.ndarray) -> None:
    for x1, y1, x2, y2 in np.asarray(boxes)[:, :4]:
        axis.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec="#F0E442", lw=0.8))


def grey(values: np.ndarray) -> np.ndarray:
    """(H, W) in 0–1 as a grey picture, uint8 (H, W, 3)."""
    return (255 * values).round().astype(np.uint8)[..., None].repeat(3, axis=2)


def grey_targets(targets: np.ndarray) -> np.ndarray:
    """boundaries.boundary_targets as a picture: boundary white, void grey."""
    return grey(np.select([targets == 1, targets == VOID], [1.0, 0.5], 0.0))


def heat(probability: np.ndarray) -> np.ndarray:
    """(H, W) in 0–1 in the colours of viridis, uint8 (H, W, 3)."""
    return plt.get_cmap(HEAT)(probability, bytes=True)[..., :3]


def colours() -> np.ndarray:
    """(256, 3) uint8: a bright colour for each label, since VOC's own are dark over a photograph; void is white."""
    table = (255 * np.array(plt.get_cmap("tab20").colors)).astype(np.uint8)
    found = table[np.concatenate([np.arange(0, 20, 2), np.arange(1, 20, 2)])][np.arange(-1, 255) % 20]
    found[VOID] = 255
    return found


def overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The regions of a label map over the photograph, half transparent, with their outlines; background is darkened."""
    colour = colours()[labels]
    edge = cv2.morphologyEx(labels.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    mixed = cv2.addWeighted(image, 0.4, colour, 0.6, 0)
    shown = np.where(labels[..., None] > 0, mixed, (0.6 * image).astype(np.uint8))
    return np.where((edge & (labels > 0))[..., None], colour, shown)


def draw_labels(axis: plt.Axes, picture: Labelled) -> None:
    """`overlay` with the name of each class on its largest region, at the point that lies deepest in it."""
    axis.imshow(overlay(picture.image, picture.labels), interpolation="nearest")
    names = classes.current().names
    for label in np.setdiff1d(picture.labels, [0, VOID]):
        _, regions, about, _ = cv2.connectedComponentsWithStats((picture.labels == label).astype(np.uint8))
        largest = 1 + int(about[1:, cv2.CC_STAT_AREA].argmax())
        if about[largest, cv2.CC_STAT_AREA] >= NAMED * picture.labels.size:
            depth = cv2.distanceTransform(np.pad((regions == largest).astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
            y, x = np.unravel_index(depth.argmax(), depth.shape)
            axis.text(x, y, names[label], color="white", fontsize=7, ha="center", va="center", clip_on=True,
                      path_effects=[withStroke(linewidth=1.5, foreground="black")])  # fmt: skip
    axis.set_xlabel(picture.note, fontsize=7, labelpad=1)


def recall_curves(recalls: dict[str, pd.DataFrame], title: str) -> Figure:
    """A panel for each column (all objects, small, …), a line for each source; rows are numbers of boxes."""
    columns = next(iter(recalls.values())).columns
    figure, axes = plt.subplots(1, len(columns), figsize=(2.6 * len(columns), 2.8), sharey=True, layout="constrained")
    for axis, column in zip(axes, columns, strict=True):
        for (source, table), colour, mark in zip(recalls.items(), LINES, "osd", strict=False):
            axis.plot(table.index, table[column], color=colour, marker=mark, ms=3, label=source)
        axis.set(xscale="log", xlabel="boxes", title=f"{column} objects", ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("recall (IoU ≥ 0.5)")
    axes[0].legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=9)
    return figure


def bars(table: pd.DataFrame, ylabel: str, title: str) -> Figure:
    """Grouped bars: a group per row, a colour per column."""
    figure, axis = plt.subplots(figsize=(max(7.5, 0.55 * len(table) + 2), 3), layout="constrained")
    table.plot.bar(ax=axis, color=list(LINES[: table.shape[1]]), width=0.8, rot=45 if len(table) > 6 else 0)
    axis.set(ylabel=ylabel, xlabel="", title=title)
    axis.legend(fontsize=7, frameon=False, ncols=table.shape[1])
    if table.isna().all(axis=None):
        say_if_empty(axis)
    return figure


def activations(picture: np.ndarray, panels: list[tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    """Figure 4: the input, and of each layer two maps below each other, with values up to 1, lettered as the paper."""
    columns = (len(panels) + 2) // 2
    figure, axes = plt.subplots(4, columns, figsize=(2 * columns, 8.4), layout="constrained")
    axes[0, 0].imshow(picture)
    axes[0, 0].set_title("(a) input", fontsize=8)
    for k, (letter, (title, *maps)) in enumerate(zip("bcdefghij", panels, strict=False), start=1):
        for axis, values in zip(axes[2 * (k // columns) :, k % columns], maps, strict=False):
            axis.imshow(values, cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
        axes[2 * (k // columns), k % columns].set_title(f"({letter}) {title}", fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.set_visible(bool(axis.images))
    for row, column in ((0, 1), (2, 0)):
        axes[row, column].set_ylabel("selected channel", fontsize=8)
        axes[row + 1, column].set_ylabel("median channel", fontsize=8)
    return figure

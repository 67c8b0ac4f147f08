"""The pictures of the claims: effects, and the curves behind them, each with its 95 % interval."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from deconvnet.claims.curves import Curves, Point
from deconvnet.claims.judge import bounds
from deconvnet.evaluation.bootstrap import Estimate
from deconvnet.evaluation.errors import KINDS, POOLED
from deconvnet.report.figures import LINES, say_if_empty

VERDICTS = {"supported": (LINES[2], "o"), "contradicted": (LINES[1], "s"), "inconclusive": ("0.45", "D"),
            "not run": ("0.45", "x")}  # fmt: skip


def effects(claims: list[dict]) -> Figure:
    """A panel for each unit, a line for each claim: the effect and its interval or range, colour and marker show the
    verdict, small dots the trainings; the paper's as a star.
    """
    units = list(dict.fromkeys(row["unit"] for row in claims))
    facets = [[row for row in claims if row["unit"] == unit] for unit in units]
    heights = [len(rows) + 0.6 for rows in facets]
    figure, axes = plt.subplots(len(units), 1, figsize=(9, 0.5 * sum(heights) + 0.6), height_ratios=heights,
                                layout="constrained", squeeze=False)  # fmt: skip
    for axis, unit, rows in zip(axes[:, 0], units, facets, strict=True):
        for y, row in enumerate(reversed(rows)):
            colour, mark = VERDICTS[row["verdict"]]
            if row["effect"] is None:
                axis.plot(0, y, " ")  # nothing, but within the limits
                axis.text(0, y, "  not run", va="center", fontsize=8, color="0.4")
            else:
                axis.plot(
                    bounds(row), [y, y], color=colour, lw=2, solid_capstyle="butt", ls=":" if row["range"] else "-"
                )
                axis.plot(row["effect"], y, mark, color=colour, ms=6)
                axis.plot(row["per_seed"], [y - 0.25] * len(row["per_seed"]), ".", color="0.35", ms=4)
            if row["paper_effect"] is not None:
                axis.plot(row["paper_effect"], y, "*", mfc="none", mec="black", ms=10)
        axis.axvline(0, color="black", lw=0.8)
        names = [fill(f"{row['id']}  {row['statement']}: {row['measure']}", 76) for row in reversed(rows)]
        axis.set_yticks(range(len(rows)), names, fontsize=8)
        axis.set(ylim=(-0.6, len(rows) - 0.4))
        axis.set_xlabel(f"{unit} (positive values support the claim)", fontsize=8)
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(axis="x", alpha=0.3)
    shown = [Line2D([], [], color=c, marker=m, label=v) for v, (c, m) in VERDICTS.items()]
    shown.append(Line2D([], [], color="0.35", ls=":", lw=2, label="range, one side trained once"))
    shown.append(Line2D([], [], ls="", marker=".", color="0.35", label="one training"))
    shown.append(Line2D([], [], ls="", marker="*", mfc="none", mec="black", ms=10, label="the paper, VOC 2012 test"))
    figure.legend(handles=shown, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure


def band(axis: plt.Axes, x: list, points: dict[str, Point], label: str, number: int) -> None:
    """A line through points with their intervals as a band."""
    colour, mark = LINES[number], "osd^v"[number]
    low, high = np.array([interval for _, interval in points.values()]).T
    axis.plot(x, [value for value, _ in points.values()], color=colour, marker=mark, ms=4, label=label)
    axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def mean_iou_by_count(curves: Curves, covered: dict[str, dict[str, float]]) -> Figure:
    """Mean IoU against the number of proposals; and the share of objects that one of them covers, by object size, of
    reports/proposals.json.
    """
    figure, (axis, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for number, (title, points) in enumerate(curves.items()):
        band(axis, [int(n) for n in points], points, title, number)
    counts = sorted({int(n) for points in curves.values() for n in points})
    shown = [n for n in sorted(map(int, covered)) if n <= max(counts)]
    for number, size in enumerate(("small", "medium", "large")):
        found = [covered[str(n)].get(size) for n in shown]  # there may be no object of a size
        shares = [np.nan if share is None else 100 * share for share in found]
        right.plot(shown, shares, color=LINES[number], marker="osd"[number], ms=4, label=f"{size} objects")
    axis.set(ylabel="mean IoU, %")
    right.set(ylabel="objects with a proposal of IoU ≥ 0.5, %", ylim=(0, 102))
    for each, ticks in ((axis, counts), (right, shown)):
        each.set(xscale="log", xlabel="proposals")
        each.set_xticks(ticks, ticks)
        each.minorticks_off()
        each.grid(alpha=0.3)
        each.legend(fontsize=8, frameon=False)
        say_if_empty(each)
    return figure


def sizes(panels: dict[str, Curves]) -> Figure:
    """Objects by size: a panel for each measure, under its title."""
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 3.4), sharey=True, layout="constrained")
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for number, (line, points) in enumerate(curves.items()):
            band(axis, range(len(points)), points, line, number)
        names = [name.replace(", ", "\n") for name in points]
        axis.set_xticks(range(len(names)), names, fontsize=7)
        axis.set(xlabel="side of the object's box / side of the image", ylim=(0, None))
        axis.set_title(title, fontsize=9)
        axis.grid(alpha=0.3)
        say_if_empty(axis)
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def layers(curves: Curves) -> Figure:
    """The excess of each layer's energy on the target, a line for each decoder."""
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for number, (title, points) in enumerate(curves.items()):
        band(axis, range(len(points)), points, title, number)
    axis.axhline(0, color="black", lw=0.8)
    axis.set_xticks(range(len(points)), points, rotation=30)
    axis.set(ylabel="excess of energy\non the target, points")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False)
    say_if_empty(axis, [value for points in curves.values() for value, _ in points.values()])
    return figure


def bar(axis: plt.Axes, x: np.ndarray, found: list[dict], width: float, colour: str, label: str) -> None:
    """Bars with intervals, and a dot for each training if there are several."""
    values = np.array([f["value"] for f in found], float)
    low, high = np.array([f["ci"] for f in found], float).T
    axis.bar(x, values, width, color=colour, label=label)
    axis.errorbar(x, values, [values - low, high - values], fmt="k,", elinewidth=0.8)
    for at, f in zip(x, found, strict=True):
        if len(f["per_seed"]) > 1:
            axis.plot(np.full(len(f["per_seed"]), at), f["per_seed"], ".", color="black", ms=2.5, alpha=0.7)


def class_differences(found: dict[str, Estimate], label: str) -> Figure:
    """errors.class_differences, the lowest first: a dot with its interval for each class, small ones for trainings."""
    known = {name: e for name, e in found.items() if np.isfinite(e.value)}
    rows = sorted(known.items(), key=lambda item: item[1].value)
    figure, axis = plt.subplots(figsize=(7, 0.22 * len(rows) + 1), layout="constrained")
    for y, (_, e) in enumerate(rows):
        axis.plot(e.ci, [y, y], color=LINES[0], lw=1.2)
        axis.plot(e.per_seed, [y] * len(e.per_seed), ".", color="0.35", ms=4)
        axis.plot(e.value, y, "o", color=LINES[0], ms=5)
    axis.axvline(0, color="black", lw=0.8)
    axis.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axis.set_xlabel(label, fontsize=9)
    axis.grid(axis="x", alpha=0.3)
    say_if_empty(axis, [e.value for _, e in rows])
    return figure


def diagnosis(parts: dict[str, dict]) -> Figure:
    """diagnosis.summary: the gain in mean IoU of each part, given by the ground truth or done otherwise."""
    rows = [row for part, row in parts.items() if part != "paper"]
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    for y, row in zip(reversed(range(len(rows))), rows, strict=True):
        gain, colour = row["gain"], LINES[0] if row["given"] else LINES[4]
        low, high = gain["ci"]
        axis.barh(y, gain["value"], 0.6, color=colour)
        axis.plot([low, high], [y, y], color="black", lw=0.9)
        if len(gain["per_seed"]) > 1:
            axis.plot(gain["per_seed"], [y] * len(gain["per_seed"]), ".", color="black", ms=3)
    axis.set_yticks(range(len(rows)), [fill(row["title"], 42) for row in reversed(rows)], fontsize=8)
    axis.axvline(0, color="black", lw=0.8)
    axis.set_xlabel("gain in mean IoU over the paper's inference, points")
    axis.grid(axis="x", alpha=0.3)
    shown = [Patch(color=LINES[0], label="given by the ground truth"), Patch(color=LINES[4], label="without it")]
    figure.legend(handles=shown, loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    say_if_empty(axis, [row["gain"]["value"] for row in rows])
    return figure


def errors(found: dict[str, dict], names: dict[str, str]) -> Figure:
    """errors.decompose, with the methods' names: the kinds of error as shares of all pixels; precision, recall and the
    IoU of objects.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    for axis, measures, label in zip(
        axes, (KINDS, (*POOLED, "object_iou")), ("share of all pixels, %", "%"), strict=True
    ):
        for number, method in enumerate(found):
            x = np.arange(len(measures)) + (number - (len(found) - 1) / 2) * 0.16
            bar(axis, x, [found[method][what] for what in measures], 0.14, LINES[number], names[method])
        axis.set_xticks(range(len(measures)), [what.replace("object_iou", "IoU of objects") for what in measures])
        axis.set(ylabel=label, ylim=(0, None))
        axis.grid(axis="y", alpha=0.3)
        say_if_empty(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(found), fontsize=8, frameon=False)
    return figure


def reliability(tables: dict[str, pd.DataFrame], errors: dict[str, float]) -> Figure:
    """Accuracy against confidence, and how many pixels there are at each."""
    figure, (axis, below) = plt.subplots(
        2, 1, figsize=(4.6, 5), height_ratios=[3, 1], sharex=True, layout="constrained"
    )
    axis.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1)
    for number, (title, table) in enumerate(tables.items()):
        total = table["pixels"].sum()
        note = f"error {100 * errors[title]:.1f} %" if total else "no pixel to compare"
        axis.plot(table["confidence"], table["accuracy"], "osd^v"[number] + "-", ms=4, color=LINES[number],
                  label=f"{title}, {note}")  # fmt: skip
        middle = (np.arange(len(table)) + 0.5) / len(table)
        below.plot(middle, table["pixels"] / max(total, 1), drawstyle="steps-mid", color=LINES[number])
    axis.set(ylabel="accuracy", ylim=(0, 1))
    axis.legend(fontsize=8, frameon=False)
    below.set_ylim(1e-5, 1.5)
    below.set(xlabel="probability of the class that wins", ylabel="share of pixels", yscale="log")
    return figure

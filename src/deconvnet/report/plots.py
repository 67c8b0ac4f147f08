"""The pictures of the claims: effects, and the curves behind them, each with its 95 % interval."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deconvnet.evaluation.curves import CHANCE, Curves, Point
from deconvnet.evaluation.errors import KINDS, POOLED
from deconvnet.report.figures import LINES, say_if_empty

VERDICTS = {"replicated": (LINES[2], "o"), "not replicated": (LINES[1], "s"), "inconclusive": ("0.45", "D")}


def effects(claims: list[dict]) -> Figure:
    """A line for each claim: the effect and its interval, colour and marker show the verdict; the paper's as a star."""
    figure, axis = plt.subplots(figsize=(9, 0.42 * len(claims) + 1.3), layout="constrained")
    for y, row in enumerate(reversed(claims)):
        if row["effect"] is None:
            axis.plot(0, y, " ")  # nothing, but within the limits
            axis.text(0, y, "  not run", va="center", fontsize=8, color="0.4")
        else:
            colour, mark = VERDICTS[row["verdict"]]
            axis.plot(row["ci"], [y, y], color=colour, lw=2, solid_capstyle="butt")
            axis.plot(row["effect"], y, mark, color=colour, ms=6)
        if row["paper_effect"] is not None:
            axis.plot(row["paper_effect"], y, "*", mfc="none", mec="black", ms=10)
    axis.axvline(0, color="black", lw=0.8)
    names = [fill(f"{row['id']}  {row['measured']}", 76) for row in reversed(claims)]
    axis.set_yticks(range(len(claims)), names, fontsize=8)
    axis.set_xlabel("effect in points (positive values support the claim)")
    axis.grid(axis="x", alpha=0.3)
    shown = [Line2D([], [], color=c, marker=m, label=v) for v, (c, m) in VERDICTS.items()]
    shown.append(Line2D([], [], ls="", marker="*", mfc="none", mec="black", ms=10, label="the paper, VOC 2012 test"))
    figure.legend(handles=shown, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure


def band(axis: plt.Axes, x: list, points: dict[str, Point], label: str, number: int) -> None:
    """A line through points with their intervals as a band."""
    colour, mark = LINES[number], "osd^v"[number]
    low, high = np.array([interval for _, interval in points.values()]).T
    axis.plot(x, [value for value, _ in points.values()], color=colour, marker=mark, ms=4, label=label)
    axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def mean_iou_by_count(curves: Curves) -> Figure:
    """Mean IoU against the number of proposals."""
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for number, (title, points) in enumerate(curves.items()):
        band(axis, [int(n) for n in points], points, title, number)
    counts = sorted({int(n) for points in curves.values() for n in points})
    axis.set(xscale="log", xlabel="proposals", ylabel="mean IoU, %")
    axis.set_xticks(counts, counts)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False)
    say_if_empty(axis)
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
    """The share of each layer's energy on the target, a line for each decoder, and chance."""
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    chance = curves[CHANCE]
    for number, (title, points) in enumerate(curves.items()):
        if title != CHANCE:
            band(axis, range(len(points)), points, title, number)
    axis.plot([value for value, _ in chance.values()], color="0.4", ls="--", lw=1, label=CHANCE)
    axis.set_xticks(range(len(chance)), chance, rotation=30)
    axis.set(ylabel="energy on the target, %", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False)
    say_if_empty(axis)
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
            values = np.array([found[method][what]["value"] for what in measures])
            low, high = np.array([found[method][what]["ci"] for what in measures]).T
            axis.bar(x, values, 0.14, color=LINES[number], label=names[method])
            axis.errorbar(x, values, [values - low, high - values], fmt="k,", elinewidth=0.8)
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

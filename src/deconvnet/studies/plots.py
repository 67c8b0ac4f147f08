"""The pictures of the studies: against training compute, and the 2×2 of decoder and input."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deconvnet.report.figures import LINES, say_if_empty
from deconvnet.studies.results import Results

TITLES = {
    "deconvnet": "DeconvNet", "fcn8s": "FCN-8s", "edeconvnet": "EDeconvNet", "edeconvnet_crf": "EDeconvNet+CRF",
}  # fmt: skip
MARKS = "osd^"


def line(axis: plt.Axes, budgets: dict, method: str, what: str, number: int) -> None:
    """A method's measure against TFLOP: the mean with its interval as a band, and a dot for each training."""
    rows = [found[method] for found in budgets.values() if what in found.get(method, {})]
    if not rows:
        return
    x = [row["tflop"] for row in rows]
    low, high = np.array([row[what]["ci"] for row in rows], float).T
    style = {"color": LINES[number], "marker": MARKS[number], "ms": 4, "markevery": []}
    axis.plot(x, [row[what]["value"] for row in rows], label=TITLES[method], **style)
    axis.fill_between(x, low, high, color=LINES[number], alpha=0.15, lw=0)
    for row in rows:
        values = row[what]["per_seed"]
        axis.plot([row["tflop"]] * len(values), values, MARKS[number], color=LINES[number], ms=4)


def log_ticks(axis: plt.Axes, at: list[float], labels: list[str], values) -> None:
    """Ticks of our own on a logarithmic axis that holds all `values`, with some space around them."""
    axis.set_xticks(at, labels, fontsize=8)
    axis.minorticks_off()
    if values:
        axis.set_xlim(min(values) / 1.25, max(values) * 1.25)


def against_compute(summary: dict, panels: dict[str, str], default: float) -> Figure:
    """A panel for each measure {what: its axis title}; `default` is the TFLOP of the default, marked by a line, as is
    the crossing of the curves of mean IoU, if there is one. An ensemble's operations are those of both its members.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.6), layout="constrained", squeeze=False)
    for axis, (what, title) in zip(axes[0], panels.items(), strict=True):
        for number, method in enumerate(TITLES if what == "mean_iou" else list(TITLES)[:2]):
            line(axis, summary["budgets"], method, what, number)
        axis.axvline(default, color="0.5", lw=0.8, ls=":")
        if what == "mean_iou" and summary["crossing"]:
            axis.axvline(default * summary["crossing"], color="0.2", lw=0.8, ls="--")
        axis.set(xscale="log", xlabel="training compute, TFLOP", ylabel=title)
        spent = {row["tflop"] for methods in summary["budgets"].values() for row in methods.values()}
        ticks = [default * int(budget) for budget in summary["budgets"]]
        log_ticks(axis, ticks, [f"{t:.0f}\n(× {b})" for t, b in zip(ticks, summary["budgets"], strict=True)], spent)
        axis.grid(alpha=0.3)
        say_if_empty(axis)
    if axes[0, 0].get_legend_handles_labels()[0]:
        axes[0, 0].legend(fontsize=8, frameon=False)
    return figure


def dev_curves(found: Results) -> Figure:
    """Mean IoU on some scenes of dev during the last training of each cell of both networks, a line for each cell."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained", sharey=True)
    budgets = sorted({budget for _, budget in found})
    for axis, arm in zip(axes, ("deconvnet", "fcn8s"), strict=True):
        for (name, budget), by_seed in found.items():
            for result in by_seed.values() if name == arm else ():
                curve = result.record["dev_curve"]
                axis.plot(
                    curve["step"],
                    [100 * v for v in curve["mean_iou"]],
                    "o-",
                    ms=2.5,
                    lw=1,
                    color=plt.get_cmap("viridis")(budgets.index(budget) / len(budgets)),
                    label=f"× {budget}",
                )
        axis.set(xscale="log", xlabel="iterations of the last training", title=TITLES[arm])
        steps = [step for line in axis.lines for step in line.get_xdata()]
        at = [step for step in (250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000) if step <= max(steps, default=0)]
        log_ticks(axis, at, [f"{step:,}" for step in at], steps)
        axis.grid(alpha=0.3)
        say_if_empty(axis)
        handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        axis.legend(handles.values(), handles.keys(), title="budget", fontsize=7, frameon=False)
    axes[0].set_ylabel("mean IoU on dev, %")
    return figure


def effects(claims: dict[str, dict], budgets: list[int]) -> Figure:
    """A small plot for each claim: its effect against the budget, with intervals and a dot for each training; what is
    above 0 supports it.
    """
    figure, axes = plt.subplots(2, -(-len(claims) // 2), figsize=(11, 4.6), layout="constrained", squeeze=False)
    for axis, (name, row) in zip(axes.flat, claims.items(), strict=False):
        for budget, numbers in row["budgets"].items():
            x = int(budget)
            axis.plot([x, x], numbers["ci"], color=LINES[0], lw=1.2)
            axis.plot([x] * len(numbers["per_seed"]), numbers["per_seed"], "o", color=LINES[0], ms=3.5)
        axis.axhline(0, color="black", lw=0.8)
        axis.set(xscale="log")
        log_ticks(axis, budgets, [f"× {b}" for b in budgets], budgets)
        axis.set_ylabel(row["unit"], fontsize=7)
        axis.set_title(f"{name}: {row['verdict']}", fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(claims) :]:
        axis.set_axis_off()
    return figure


def precedent(table: pd.DataFrame) -> Figure:
    """The published mean IoU of re-trained networks against their iterations, by data set."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained")
    for axis, column, title in zip(axes, ("camvid", "sun_rgbd"), ("CamVid", "SUN RGB-D"), strict=True):
        for number, (network, rows) in enumerate(table.groupby("network", sort=False)):
            axis.plot(rows["iterations"], rows[column], MARKS[number] + "-", color=LINES[number], label=network)
        axis.set(xscale="log", xlabel="iterations", title=title)
        steps = sorted(set(table["iterations"]))
        log_ticks(axis, steps, [f"{step:,}" for step in steps], steps)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean IoU, %")
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def two_by_two(found: dict[str, dict[str, dict]]) -> Figure:
    """What the decoder, the proposals and both bring in mean IoU, for each budget, with intervals and a dot for each
    seed.
    """
    figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    names = ("decoder", "proposals", "both", "interaction")
    for number, (budget, brings) in enumerate(found.items()):
        x = np.arange(len(names)) + (number - (len(found) - 1) / 2) * 0.3
        for at, name in zip(x, names, strict=True):
            part = brings[name]
            axis.bar(
                at, part["value"], 0.26, color=LINES[number], label=f"budget {budget}" if name == names[0] else None
            )
            axis.plot([at, at], part["ci"], color="black", lw=0.9)
            axis.plot([at] * len(part["per_seed"]), part["per_seed"], ".", color="black", ms=3)
    axis.axhline(0, color="black", lw=0.8)
    axis.set_xticks(range(len(names)), ["the deconvolution\ndecoder", "proposals", "both", "interaction"], fontsize=8)
    axis.set_ylabel("points of mean IoU")
    if found:
        axis.legend(fontsize=8, frameon=False)
    say_if_empty(axis, [part["value"] for brings in found.values() for part in brings.values()])
    return figure

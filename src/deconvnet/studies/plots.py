"""The pictures of the studies: against training compute, and the 2×2 of decoder and input."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from deconvnet.report.figures import LINES, say_if_empty

TITLES = {"deconvnet": "DeconvNet", "fcn8s": "FCN-8s"}


def line(axis: plt.Axes, budgets: dict, arm: str, what: str, number: int) -> None:
    """An arm's measure against TFLOP: the mean with its interval as a band, and a dot for each training."""
    rows = [found[arm] for found in budgets.values() if arm in found]
    if not rows:
        return
    x = [row["tflop"] for row in rows]
    low, high = np.array([row[what]["ci"] for row in rows], float).T
    axis.plot(x, [row[what]["value"] for row in rows], color=LINES[number], label=TITLES[arm])
    axis.fill_between(x, low, high, color=LINES[number], alpha=0.15, lw=0)
    for row in rows:
        values = row[what]["per_seed"]
        axis.plot([row["tflop"]] * len(values), values, "osd"[number], color=LINES[number], ms=4)


def against_compute(summary: dict, panels: dict[str, str], default: float) -> Figure:
    """A panel for each measure {what: its axis title}; `default` is the TFLOP of the default, marked by a line, as is
    the crossing of the curves of mean IoU, if there is one.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.6), layout="constrained", squeeze=False)
    for axis, (what, title) in zip(axes[0], panels.items(), strict=True):
        for number, arm in enumerate(TITLES):
            line(axis, summary["budgets"], arm, what, number)
        axis.axvline(default, color="0.5", lw=0.8, ls=":")
        if what == "mean_iou" and summary["crossing"]:
            axis.axvline(default * summary["crossing"], color="0.2", lw=0.8, ls="--")
        axis.set(xscale="log", xlabel="training compute, TFLOP", ylabel=title)
        axis.grid(alpha=0.3)
        say_if_empty(axis)
    axes[0, 0].legend(fontsize=8, frameon=False)
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
    axis.legend(fontsize=8, frameon=False)
    return figure

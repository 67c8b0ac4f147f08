"""What the claims' figures draw, point by point with its 95 % interval: plots.py draws it, curves.md and curves.json
tell it. The intervals are made by the ledger's bootstrap.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from deconvnet import claims, samples
from deconvnet.samples import Samples

Point = tuple[float, tuple[float, float]]  # a value and its interval
Curves = dict[str, dict[str, Point]]  # {line: {where on the x axis: point}}
CHANCE = "chance: the target's share of the area"
TWO = {"fcn8s": "FCN-8s", "deconvnet": "DeconvNet"}


@dataclass(frozen=True)
class Measured:
    """Values with their intervals, by the same bootstrap as the ledger's."""

    runs: list[Samples]
    images: int
    resamples: int
    seed: int

    def of(self, measure: Callable) -> Point:
        return claims.bootstrap(measure, self.runs, self.images, self.resamples, self.seed)

    def iou(self, key: str) -> Point:
        return self.of(claims.iou(key))


def windows(measured: Measured, counts: list[int]) -> Curves:
    """C4: mean IoU after each number of windows that was counted, in both orders."""
    orders = {"best": "best first (objectness)", "largest": "largest first (figure 6)"}
    counted = {o: [n for n in counts if f"windows/{o}/{n}" in measured.runs[0]] for o in orders}
    return {title: {str(n): measured.iou(f"windows/{o}/{n}") for n in counted[o]} for o, title in orders.items()}


def size_bins(edges: list[float]) -> dict[str, tuple[float, float]]:
    """{name of a bin: its bounds}, of the side of an object's box to that of the image."""
    names = [f"< {edges[0]:g}", *(f"{a:g}–{b:g}" for a, b in pairwise(edges)), f"≥ {edges[-1]:g}"]
    return dict(zip(names, pairwise([0, *edges, np.inf]), strict=True))


def objects_by_size(measured: Measured, edges: list[float], what: str) -> Curves:
    """C5: pixel recall or IoU of single objects, as `what` says, by both networks."""
    return {
        title: {f"{name}, n = {n}": measured.of(claims.of_sizes(what, method, *bounds))
                for n, (name, bounds) in zip(counts_by_size(measured.runs[0], edges), size_bins(edges).items(),
                                             strict=True)}
        for method, title in TWO.items()
    }  # fmt: skip


def counts_by_size(run: Samples, edges: list[float]) -> list[int]:
    """How many objects there are in each bin of size."""
    return np.bincount(np.searchsorted(edges, run["objects/size"], side="right"), minlength=len(edges) + 1).tolist()


def energy_by_layer(measured: Measured, ablations: Samples) -> Curves:
    """C8: the share of the energy on the target in each layer of the decoder, from its coarsest unpooling to its last
    deconvolution, and chance; the bilinear decoder's if it was run, which was with one seed.
    """
    layers = measured.runs[0]["deconvnet/energy"].shape[1] - 1
    names = [f"{what}{k}" for k in range(layers // 2, 0, -1) for what in ("unpool", "deconv")]

    def line(of: Measured, decoder: str) -> dict[str, Point]:
        return {name: of.of(claims.energy(decoder, i)) for i, name in enumerate(names, start=1)}

    lines = {"unpooling (DeconvNet)": line(measured, "deconvnet")}
    if "bilinear/energy" in ablations:
        lines["bilinear upsampling"] = line(replace(measured, runs=[ablations]), "bilinear")
    chance = measured.of(claims.energy("deconvnet", 0))
    return lines | {CHANCE: dict.fromkeys(names, chance)}


def records(curves: dict[str, Curves]) -> dict[str, list[dict]]:
    """The same for curves.json."""
    return {
        name: [{"line": line, "x": x, "value": value, "ci": list(ci)}
               for line, points in lines.items() for x, (value, ci) in points.items()]
        for name, lines in curves.items()
    }  # fmt: skip


def beyond(measured: Measured, ablations: Samples, rule: str) -> list[dict]:
    """Mean IoU of what the paper leaves open, and the share of background: the rule of aggregation; that of the
    ensemble (`rule` is what params.yaml takes); and DeconvNet without one of its parts.
    """
    keys = {f"DeconvNet, {r} of the windows' scores": f"windows/rule/{r}" for r in ("maximum", "mean", "sum")}
    keys |= {f"EDeconvNet, {rule}": "tally/edeconvnet", "EDeconvNet, product": "tally/edeconvnet_product"}
    keys |= {f"DeconvNet {title}": f"{name}/tally" for name, title in claims.ABLATED.items()}
    rows = []
    for title, key in keys.items():
        runs = [run for run in (*measured.runs, ablations) if key in run]
        if runs:
            share = float(np.mean([samples.background(run[key]) for run in runs]))
            row = {"method": title, "iou": replace(measured, runs=runs).iou(key), "background": share}
            rows.append(row | {"seeds": len(runs)})
    truth = measured.runs[0]["tally/deconvnet"][:, [0, 2, 1]]  # what is true in the place of what is predicted
    return [*rows, {"method": "truth", "iou": None, "background": samples.background(truth), "seeds": None}]

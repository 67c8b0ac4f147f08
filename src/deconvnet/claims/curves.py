"""The curves behind the claims, point by point with 95 % intervals from the same bootstrap. report.plots draws them;
curves.md and curves.json list them.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from deconvnet.claims.judge import of_ablation
from deconvnet.claims.statements import ABLATED
from deconvnet.evaluation import measures, per_image
from deconvnet.evaluation.bootstrap import Measure, estimate
from deconvnet.evaluation.per_image import PerImageCounts

Point = tuple[float, tuple[float, float]]  # a value and its interval
Curves = dict[str, dict[str, Point]]  # {line: {position on the x axis: point}}
TWO = {"fcn8s": "FCN-8s", "deconvnet": "DeconvNet"}


@dataclass(frozen=True)
class Measured:
    """Values with their intervals, by the bootstrap of the claims table."""

    runs: list[PerImageCounts]
    images: int
    resamples: int
    seed: int

    def of(self, measure: Measure) -> Point:
        found = estimate(measure, self.runs, self.images, self.resamples, self.seed)
        return found.value, found.ci

    def iou(self, method: str, kind: str = "counts") -> Point:
        return self.of(measures.iou(method, kind))


def mean_iou_by_count(measured: Measured, counts: list[int]) -> Curves:
    """C4: DeconvNet's mean IoU for each number of proposals, in both orders, and that of FCN-8s, which has none."""
    orders = {"best": "best first (objectness)", "largest": "largest first (figure 6)"}
    counted = {o: [n for n in counts if f"proposals/{o}/{n}" in measured.runs[0]] for o in orders}
    lines = {
        f"DeconvNet, {title}": {str(n): measured.iou(f"{o}/{n}", "proposals") for n in counted[o]}
        for o, title in orders.items()
    }
    return lines | {"FCN-8s": dict.fromkeys(map(str, counts), measured.iou("fcn8s"))}


def size_bins(edges: list[float]) -> dict[str, tuple[float, float]]:
    """{name of a bin: its bounds}, of the side of an object's box to that of the image."""
    names = [f"< {edges[0]:g}", *(f"{a:g}–{b:g}" for a, b in pairwise(edges)), f"≥ {edges[-1]:g}"]
    return dict(zip(names, pairwise([0, *edges, np.inf]), strict=True))


def objects_by_size(measured: Measured, edges: list[float], what: str) -> Curves:
    """C5: pixel recall or IoU of single objects, (`what`), by both networks."""
    return {
        title: {f"{name}, n = {n}": measured.of(measures.objects(what, method, *bounds))
                for n, (name, bounds) in zip(counts_by_size(measured.runs[0], edges), size_bins(edges).items(),
                                             strict=True)}
        for method, title in TWO.items()
    }  # fmt: skip


def counts_by_size(run: PerImageCounts, edges: list[float]) -> list[int]:
    """How many objects there are in each bin of size."""
    return np.bincount(np.searchsorted(edges, run["objects/size"], side="right"), minlength=len(edges) + 1).tolist()


def energy_by_layer(measured: Measured, ablations: PerImageCounts) -> Curves:
    """C8: the share of energy on the target in each layer of the decoder, from its coarsest unpooling to its last
    deconvolution, less the share of a map that is the same for every object: of DeconvNet, and of the ablated networks
    that were trained in two stages (one seed).
    """
    layers = measured.runs[0]["energy/deconvnet"].shape[1]
    names = [f"{what}{k}" for k in range(layers // 2, 0, -1) for what in ("unpool", "deconv")]
    lines = {"DeconvNet": measured}
    for name in ("bilinear", "no_batch_norm_he"):
        if "energy/deconvnet" in (found := of_ablation(name, ablations)):
            lines[f"DeconvNet {ABLATED[name]}"] = replace(measured, runs=[found])
    return {
        title: {name: of.of(measures.energy("deconvnet", i, "excess")) for i, name in enumerate(names)}
        for title, of in lines.items()
    }


def records(curves: dict[str, Curves]) -> dict[str, list[dict]]:
    """The same for curves.json."""
    return {
        name: [{"line": line, "x": x, "value": value, "ci": list(ci)}
               for line, points in lines.items() for x, (value, ci) in points.items()]
        for name, lines in curves.items()
    }  # fmt: skip


def beyond(measured: Measured, ablations: PerImageCounts, rule: str) -> list[dict]:
    """Mean IoU and share of background of what the paper leaves open: aggregation rules, ensemble rules (`rule` is that
    of params.yaml), and DeconvNet without one of its parts.
    """
    keys = {f"DeconvNet, {r} of the proposals' scores": (f"rule/{r}", "proposals") for r in ("maximum", "mean", "sum")}
    keys |= {f"EDeconvNet, {rule}": ("edeconvnet", "counts"), "EDeconvNet, product": ("edeconvnet_product", "counts")}
    rows = []
    found = [(title, measured.runs, key) for title, key in keys.items()]
    found += [(f"DeconvNet {title}", [ablated], ("deconvnet", "counts"))
              for name, title in ABLATED.items() if (ablated := of_ablation(name, ablations))]  # fmt: skip
    for title, runs, (method, kind) in found:
        share = float(np.mean([per_image.background_share(run[f"{kind}/{method}"]) for run in runs]))
        row = {"method": title, "iou": replace(measured, runs=runs).iou(method, kind), "background": share}
        rows.append(row | {"seeds": len(runs)})
    ground_truth = measured.runs[0]["counts/deconvnet"][:, [0, 2, 1]]  # its own counts as the prediction
    return [
        *rows,
        {"method": "ground truth", "iou": None, "background": per_image.background_share(ground_truth), "seeds": None},
    ]

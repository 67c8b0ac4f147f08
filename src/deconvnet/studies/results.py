"""What the cells in reports/studies say together: mean IoU against training compute, convergence, the 2×2."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from deconvnet.data.voc import SIZES
from deconvnet.evaluation import errors, per_image
from deconvnet.evaluation.bootstrap import Measure, estimate
from deconvnet.evaluation.measures import iou, objects
from deconvnet.evaluation.per_image import PerImageCounts
from deconvnet.studies import rules
from deconvnet.studies.arms import TWO_BY_TWO

Results = dict[tuple[str, int], dict[int, "Result"]]  # {(arm, budget): {seed: result}}


@dataclass(frozen=True)
class Result:
    record: dict
    counts: PerImageCounts


def load(folder: Path, experiment: str | None = None) -> Results:
    """The cells of a folder, <arm>-x<budget>-s<seed>.json and .npz; with `experiment`, of that one alone."""
    found: Results = {}
    for path in sorted(folder.glob("*-x*-s*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if experiment in (None, record["experiment"]):
            cell = found.setdefault((record["arm"], record["budget"]), {})
            cell[int(path.stem.rpartition("-s")[2])] = Result(record, per_image.load(path.with_suffix(".npz")))
    return found


@dataclass(frozen=True)
class Study:
    """The results with the settings of the intervals."""

    results: Results
    small: float  # bounds of object size
    medium: float
    resamples: int
    seed: int

    def of(self, measure: Measure, runs: list[PerImageCounts]) -> dict:
        images = len(next(v for k, v in runs[0].items() if k.startswith("counts/")))
        e = estimate(measure, runs, images, self.resamples, self.seed)
        return {"value": e.value, "ci": list(e.ci), "per_seed": list(e.per_seed)}

    def budgets(self) -> dict[int, dict[str, dict]]:
        """{budget: {arm: its numbers}}: TFLOP, mean IoU, recall by object size and kinds of error, in %."""
        edges = dict(zip(SIZES, ((0, self.small), (self.small, self.medium), (self.medium, math.inf)), strict=True))
        found: dict[int, dict[str, dict]] = {}
        for (arm, budget), by_seed in sorted(self.results.items(), key=lambda item: item[0][1]):
            runs = [result.counts for result in by_seed.values()]
            row = {"tflop": next(iter(by_seed.values())).record["flops"] / 1e12, "seeds": sorted(by_seed)}
            row |= {"mean_iou": self.of(iou(arm), runs), "dev_mean_iou": self.dev()[arm][budget]}
            row |= {f"recall_{size}": self.of(objects("recall", arm, *bounds), runs) for size, bounds in edges.items()}
            row |= {kind: self.of(errors.share(kind, arm), runs) for kind in errors.KINDS}
            found.setdefault(budget, {})[arm] = row
        return found

    def dev(self) -> dict[str, dict[int, list[float]]]:
        """{arm: {budget: mean IoU on dev of each seed}}"""
        found: dict[str, dict[int, list[float]]] = {}
        for (arm, budget), by_seed in self.results.items():
            found.setdefault(arm, {})[budget] = [result.record["mean_iou"]["dev"] for result in by_seed.values()]
        return found

    def two_by_two(self, budget: int) -> dict[str, dict] | None:
        """rules.two_by_two with intervals, over the seeds that all four arms have; None if one arm is missing."""
        cells = [self.results.get((arm, budget), {}) for arm in TWO_BY_TWO.values()]
        seeds = sorted(set.intersection(*(set(cell) for cell in cells)))
        runs = [{k: v for cell in cells for k, v in cell[seed].counts.items()} for seed in seeds]
        if not runs:
            return None

        def brings(what: str) -> Measure:
            measures = {pair: iou(arm) for pair, arm in TWO_BY_TWO.items()}
            return lambda run, weights: rules.two_by_two({p: m(run, weights) for p, m in measures.items()})[what]

        return {what: self.of(brings(what), runs) for what in ("decoder", "proposals", "both", "interaction")}

    def summary(self) -> dict:
        """reports/studies.json"""
        budgets, dev = self.budgets(), self.dev()
        curve = {
            arm: {b: rows[arm]["mean_iou"]["value"] for b, rows in budgets.items() if arm in rows}
            for arm in ("deconvnet", "fcn8s")
        }
        return {
            "budgets": {str(budget): rows for budget, rows in budgets.items()},
            "crossing": rules.crossing(curve["deconvnet"], curve["fcn8s"]),
            "converged": {arm: {str(b): v for b, v in rules.converged(values).items()} for arm, values in dev.items()},
            "two_by_two": {str(b): found for b in budgets if (found := self.two_by_two(b))},
        }

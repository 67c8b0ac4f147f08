"""What the cells in reports/studies say together: mean IoU against training compute, convergence, the 2×2."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deconvnet.data.voc import SIZES
from deconvnet.evaluation import errors, per_image
from deconvnet.evaluation.bootstrap import Measure, draws, estimate
from deconvnet.evaluation.measures import iou, objects
from deconvnet.evaluation.per_image import PerImageCounts
from deconvnet.studies import rules
from deconvnet.studies.arms import TWO_BY_TWO

Results = dict[tuple[str, int], dict[int, "Result"]]  # {(arm, budget): {seed: result}}


@dataclass(frozen=True)
class Result:
    record: dict
    counts: PerImageCounts

    @property
    def methods(self) -> list[str]:
        """An arm has one; EDeconvNet has one more with the CRF."""
        return [key.removeprefix("counts/") for key in self.counts if key.startswith("counts/")]


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

    def runs(self, budget: int) -> dict[int, PerImageCounts]:
        """{seed: the counts of all its arms and ensembles at a budget}; next/… are those of the seed that the members
        of two_deconvnet and two_fcn8s are from.
        """
        found: dict[int, PerImageCounts] = {}
        for (_, of_budget), by_seed in self.results.items():
            for seed, result in by_seed.items() if of_budget == budget else ():
                found.setdefault(seed, {}).update(result.counts)
        for arm in ("deconvnet", "fcn8s"):
            for seed, result in self.results.get((f"two_{arm}", budget), {}).items():
                other = found.get(result.record["other"], {}).get(f"counts/{arm}")
                found[seed] |= {} if other is None else {f"next/counts/{arm}": other}
        return found

    def over_budgets(self, measure: Measure) -> dict[int, dict]:
        """{budget: the measure over the seeds that have what it needs}. Where there is one seed, the spread over seeds
        is that of the largest budget with several, so that its interval is about images and seeds too.
        """
        found, alone = {}, {}
        for budget in sorted({budget for _, budget in self.results}):
            usable = {}
            for seed, run in self.runs(budget).items():
                images = len(next(v for k, v in run.items() if k.startswith("counts/")))
                try:
                    measure(run, np.ones((1, images), int))
                except KeyError:  # an arm that was not trained at this budget with this seed
                    continue
                usable[seed] = run
            if len(usable) > 1:
                e = estimate(measure, list(usable.values()), images, self.resamples, self.seed)
                row = {"value": e.value, "ci": list(e.ci), "p": e.p, "per_seed": list(e.per_seed)}
                found[budget] = row | {"seeds": list(usable)}
            elif usable:
                alone[budget] = usable
        several = max(found, default=None)
        for budget, usable in alone.items():
            values = found[several]["per_seed"] if several else [0.0, 0.0]
            found[budget] = self.of_one(measure, next(iter(usable.values())), values) | {"seeds": list(usable)}
        return dict(sorted(found.items()))

    def of_one(self, measure: Measure, run: PerImageCounts, values_of_seeds: list[float]) -> dict:
        """Of one training, with the spread of others: the standard deviation over seeds times Student's t is added to
        each resample of the images, as bootstrap.estimate does with a standard error.
        """
        images = len(next(v for k, v in run.items() if k.startswith("counts/")))
        weights, t = draws(images, len(values_of_seeds), self.resamples, self.seed)
        value = float(measure(run, np.ones((1, images), int))[0])
        values = measure(run, weights) + t * np.std(values_of_seeds, ddof=1)
        values = values[np.isfinite(values)]
        if not len(values):
            return {"value": math.nan, "ci": [math.nan, math.nan], "p": math.nan, "per_seed": [value]}
        low, high = np.percentile(values, [2.5, 97.5])
        p = min(1.0, 2 * (1 + int(min((values <= 0).sum(), (values >= 0).sum()))) / (1 + len(values)))
        return {"value": value, "ci": [float(low), float(high)], "p": p, "per_seed": [value]}

    def budgets(self) -> dict[int, dict[str, dict]]:
        """{budget: {method: its numbers}}: TFLOP, mean IoU, recall by object size and kinds of error, in %."""
        edges = dict(zip(SIZES, ((0, self.small), (self.small, self.medium), (self.medium, math.inf)), strict=True))
        found: dict[int, dict[str, dict]] = {}
        for (_, budget), by_seed in sorted(self.results.items(), key=lambda item: item[0][1]):
            for method in next(iter(by_seed.values())).methods:
                cell = self.results.get((method.removesuffix("_crf"), budget), by_seed)  # the CRF is not trained
                records = [result.record for _, result in sorted(cell.items())]
                row = {"tflop": records[0]["flops"] / 1e12, "seeds": sorted(by_seed)}
                row |= {"gflop_an_image": float(np.mean([r["inference_flops"] for r in records])) / 1e9}
                row |= {"hours": sum(r["hours"] for r in records), "machines": sorted({r["machine"] for r in records})}
                if "dev" in records[0]["mean_iou"]:
                    row["dev_mean_iou"] = [r["mean_iou"]["dev"] for r in records]
                found.setdefault(budget, {})[method] = row
        for method in {method for rows in found.values() for method in rows}:
            measures = {"mean_iou": iou(method)}
            measures |= {f"recall_{size}": objects("recall", method, *bounds) for size, bounds in edges.items()}
            measures |= {kind: errors.share(kind, method) for kind in errors.KINDS}
            for what, measure in measures.items():
                for budget, row in self.over_budgets(measure).items():
                    found[budget][method][what] = {k: row[k] for k in ("value", "ci", "per_seed")}
        return found

    def dev(self) -> dict[str, dict[int, list[float]]]:
        """{arm: {budget: mean IoU on dev of each seed}}"""
        found: dict[str, dict[int, list[float]]] = {}
        for (arm, budget), by_seed in self.results.items():
            if values := [r.record["mean_iou"]["dev"] for r in by_seed.values() if "dev" in r.record["mean_iou"]]:
                found.setdefault(arm, {})[budget] = values
        return found

    def two_by_two(self) -> dict[int, dict[str, dict]]:
        """{budget: rules.two_by_two with intervals}, over the seeds that all four arms have."""

        def brings(what: str) -> Measure:
            measures = {pair: iou(arm) for pair, arm in TWO_BY_TWO.items()}
            return lambda run, weights: rules.two_by_two({p: m(run, weights) for p, m in measures.items()})[what]

        found: dict[int, dict[str, dict]] = {}
        for what in ("decoder", "proposals", "both", "interaction"):
            for budget, row in self.over_budgets(brings(what)).items():
                found.setdefault(budget, {})[what] = row
        return found

    def summary(self) -> dict:
        """reports/studies.json, without the claims"""
        budgets, dev = self.budgets(), self.dev()
        curve = {
            arm: {b: rows[arm]["mean_iou"]["value"] for b, rows in budgets.items() if arm in rows}
            for arm in ("deconvnet", "fcn8s")
        }
        return {
            "budgets": {str(budget): rows for budget, rows in budgets.items()},
            "crossing": rules.crossing(curve["deconvnet"], curve["fcn8s"]),
            "converged": {arm: {str(b): v for b, v in rules.converged(values).items()} for arm, values in dev.items()},
            "two_by_two": {str(budget): rows for budget, rows in self.two_by_two().items()},
        }

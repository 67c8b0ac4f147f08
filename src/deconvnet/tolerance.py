"""Whether another run's metrics are those of this experiment, or something has changed.

    python -m deconvnet.tolerance OTHER.json      a run's metrics.json against reports/tolerance.json

reports/tolerance.json is written by `make seeds`. On one kind of machine a run repeats exactly; on another, sums are
added in another order, and training drifts apart as with another seed. So a new run may lie where one more seed may:
the known runs' mean, and about it an interval of prediction. Four runs say little of one metric's spread, so that of
the five methods is taken as the same: their variances are averaged, which is wide for the steadiest, FCN-8s.
"""

import json
import math
import statistics
import sys
from pathlib import Path

from scipy import stats

from deconvnet.paths import REPORTS
from deconvnet.tables import METHODS

# The share of runs of unchanged code that have a number out of tolerance, if methods and metrics were independent. They
# are not: simulated, it is 8 % if the methods move as one and four metrics do not. The truth lies between.
ALARMS = 0.01


def spread(runs: list[dict]) -> dict:
    """{method: {metric: {"values": [one a run], "tolerance": about their mean}}}"""
    result = {method: {} for method in METHODS}
    metrics = next(iter(runs[0].values()))
    numbers = len(METHODS) * len(metrics)  # each could raise an alarm: Bonferroni's correction
    quantile = stats.t.ppf(1 - ALARMS / numbers / 2, df=len(METHODS) * (len(runs) - 1))
    for metric in metrics:
        values = {method: [run[method][metric] for run in runs] for method in METHODS}
        deviation = math.sqrt(statistics.mean(statistics.variance(v) for v in values.values()))
        tolerance = float(quantile) * deviation * math.sqrt(1 + 1 / len(runs))  # the mean of the runs errs as well
        for method in METHODS:
            result[method][metric] = {"values": values[method], "tolerance": tolerance}
    return result


def compare(known: dict, other: dict) -> list[str]:
    """A line for each metric of each method; those out of tolerance, or not numbers, begin with FAILED."""
    lines = []
    for method in METHODS:
        for metric, found in known[method].items():
            value, mean, allowed = other[method][metric], statistics.mean(found["values"]), found["tolerance"]
            verdict = "ok" if abs(value - mean) <= allowed else "FAILED"
            lines.append(
                f"{verdict} {method}.{metric}: {value:.4f}, {len(found['values'])} runs {mean:.4f}, "
                f"tolerance {allowed:.4f}"
            )
    return lines


def main(other: str) -> int:
    lines = compare(json.loads((REPORTS / "tolerance.json").read_text()), json.loads(Path(other).read_text()))
    print("\n".join(lines))
    return int(any(line.startswith("FAILED") for line in lines))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

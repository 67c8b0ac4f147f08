"""Whether the metrics of another run are those of the same experiment, or something has changed.

    python -m deconvnet.claims.tolerance OTHER.json KNOWN.json

compares a run's metrics.json with known runs, for instance reports/tolerance.json, which `make seeds` writes. On one
machine a run repeats exactly. On another, sums are added in another order, and training drifts apart as with another
seed. So a new run must lie in a prediction interval for one more seed, around the mean of the known runs. A few runs
say little about the spread of one metric, so the variances of the five methods are averaged: that is generous to the
steadiest, FCN-8s.
"""

import json
import math
import statistics
import sys
from pathlib import Path

from scipy import stats

from deconvnet.evaluation.methods import METHODS

# Share of runs of unchanged code with a number out of tolerance, if methods and metrics were independent. They are not:
# simulated, it is 8 % if the methods vary together and the four metrics do not. The true share is in between.
ALARMS = 0.01


def spread(runs: list[dict], spread_of: list[dict] | None = None) -> dict:
    """{method: {metric: {"values": [one per run], "tolerance": about their mean}}}

    `spread_of`: other runs, from which the variance over seeds is estimated instead.
    """
    result, known = {method: {} for method in METHODS}, spread_of or runs
    metrics = next(iter(runs[0].values()))
    numbers = len(METHODS) * len(metrics)  # Bonferroni's correction: each could raise an alarm
    quantile = float(stats.t.ppf(1 - ALARMS / numbers / 2, df=len(METHODS) * (len(known) - 1)))
    for metric in metrics:
        variances = [statistics.variance(run[method][metric] for run in known) for method in METHODS]
        tolerance = quantile * math.sqrt(statistics.mean(variances))
        tolerance *= math.sqrt(1 + 1 / len(runs))  # the mean of the runs varies too
        for method in METHODS:
            result[method][metric] = {"values": [run[method][metric] for run in runs], "tolerance": tolerance}
    return result


def compare(known: dict, other: dict) -> list[str]:
    """A line for each metric of each method; those out of tolerance, or not numbers, begin with FAILED."""
    lines = []
    for method in METHODS:
        for metric, found in known[method].items():
            value, mean, allowed = other[method][metric], statistics.mean(found["values"]), found["tolerance"]
            value = math.nan if value is None else value  # how JSON writes what could not be measured
            verdict = "ok" if abs(value - mean) <= allowed else "FAILED"
            lines.append(
                f"{verdict} {method}.{metric}: {value:.4f}, {len(found['values'])} runs {mean:.4f}, "
                f"tolerance {allowed:.4f}"
            )
    return lines


def main(other: str, known: str) -> int:
    lines = compare(
        json.loads(Path(known).read_text(encoding="utf-8")), json.loads(Path(other).read_text(encoding="utf-8"))
    )
    print("\n".join(lines))
    return int(any(line.startswith("FAILED") for line in lines))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

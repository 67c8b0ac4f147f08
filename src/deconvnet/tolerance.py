"""How far each metric may move from machine to machine: three standard deviations over the seeds of training.

    python -m deconvnet.tolerance OTHER.json      another run's metrics.json against the committed one

reports/tolerance.json is written by `make seeds`. On one kind of machine a run repeats exactly; on another, sums are
added in another order and training drifts apart.
"""

import json
import statistics
import sys
from pathlib import Path

from deconvnet.paths import REPORTS
from deconvnet.tables import METHODS


def spread(runs: list[dict]) -> dict:
    """{method: {metric: {"values": [one a run], "tolerance": 3 standard deviations}}}"""
    result = {method: {} for method in METHODS}
    for method in METHODS:
        for metric in runs[0][method]:
            values = [run[method][metric] for run in runs]
            result[method][metric] = {"values": values, "tolerance": 3 * statistics.stdev(values)}
    return result


def compare(committed: dict, other: dict, tolerances: dict) -> list[str]:
    """A line for each metric of each method; those out of tolerance, or not numbers, begin with FAILED."""
    lines = []
    for method in METHODS:
        for metric, ours in committed[method].items():
            theirs, allowed = other[method][metric], tolerances[method][metric]["tolerance"]
            verdict = "ok" if abs(ours - theirs) <= allowed else "FAILED"
            lines.append(f"{verdict} {method}.{metric}: {theirs:.4f}, committed {ours:.4f}, tolerance {allowed:.4f}")
    return lines


def main(other: str) -> int:
    def read(path: Path) -> dict:
        return json.loads(Path(path).read_text())

    lines = compare(read(REPORTS / "metrics.json"), read(other), read(REPORTS / "tolerance.json"))
    print("\n".join(lines))
    return int(any(line.startswith("FAILED") for line in lines))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

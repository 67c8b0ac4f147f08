"""What the default takes beside training, at a commit before and now: python benchmarks/before.py [ROUNDS]

Both run whole, in turn, in fresh clones of their own, with one update a training. Only the contours, on which the
windows hang, are trained in full; at the end their stage is run again with one update, and that is what counts. So what
is timed is kernel starts, imports, data, proposals, inference, CRF, figures, report and DVC.
A quarter to half an hour a round on two idle cores. Adds `pipeline` to reports/benchmarks.json.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from measure import here
from outcome import write

from deconvnet.config.paths import ROOT
from deconvnet.pipeline import provenance

BEFORE = "ad51cec"
ONE = {
    "backbone": ("iterations", "proposal_iterations"),
    "stage1": ("iterations",),
    "stage2": ("iterations",),
    "fcn": ("iterations",),
}


def timed(clone: Path, module: str, *arguments: str) -> float:
    """Seconds that a program of the clone's takes."""
    started, environment = time.perf_counter(), os.environ | {"PYTHONPATH": str(clone / "src")}
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=clone, env=environment, check=True)
    return time.perf_counter() - started


def run(clone: Path, commit: str) -> dict[str, float]:
    """Seconds of each notebook, and of everything between them."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    subprocess.run(["git", "checkout", "-q", commit], cwd=clone, check=True)
    settings = yaml.safe_load((clone / "params.yaml").read_text())
    for section, keys in ONE.items():
        settings[section] |= dict.fromkeys(keys, 1)
    (clone / "params.yaml").write_text(yaml.safe_dump(settings))
    (clone / "dvc.lock").unlink()
    whole = timed(clone, "deconvnet.pipeline.repro")
    seconds = json.loads((clone / "reports" / "provenance.json").read_text())["seconds"]
    settings["boundaries"]["iterations"] = 1
    (clone / "params.yaml").write_text(yaml.safe_dump(settings))
    untrained = timed(clone, "deconvnet.pipeline.run_notebook", "boundaries", "reports/notebooks/boundaries.ipynb")
    whole, seconds["boundaries"] = whole - seconds["boundaries"] + untrained, untrained
    return seconds | {"DVC, process starts, report": whole - sum(seconds.values()), "all": whole}


def main() -> None:
    rounds, found = int(sys.argv[1]) if len(sys.argv) > 1 else 1, {"before": [], "now": []}
    of = here()
    for number in range(rounds):
        for name, commit in (("before", BEFORE), ("now", provenance.command_output("git", "rev-parse", "HEAD"))):
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(run(Path(folder) / "deconvnet", commit))
            print(f"# round {number + 1}, {name}: {found[name][-1]['all']:.0f} s", flush=True)
    stages = {
        stage: {name: statistics.median(row[stage] for row in rows) for name, rows in found.items()}
        for stage in found["now"][0]
    }
    pipeline = {
        "vs_before": statistics.median(b["all"] / n["all"] for b, n in zip(*found.values(), strict=True)),
        "rounds": [[b["all"], n["all"]] for b, n in zip(*found.values(), strict=True)],
        "before": BEFORE,
        "stages": stages,
        "how": f"The whole default with one update a training, in fresh clones in turn, "
        f"{rounds} round(s), on {provenance.device_name()}: `python benchmarks/before.py`.",
    }
    write(pipeline=pipeline | of)


if __name__ == "__main__":
    main()

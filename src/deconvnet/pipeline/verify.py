"""Whether the committed results are what this code makes.

    python -m deconvnet.pipeline.verify --quick             do code, parameters and committed reports belong together?
    python -m deconvnet.pipeline.verify --profile smoke     and do two runs in fresh clones give the same bytes?

The first asks DVC, whose dvc.lock has the hashes of all three. The clones lie under different paths and run with
different numbers of processes; each output that differs is printed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from deconvnet.config.paths import ROOT
from deconvnet.pipeline.preflight import DEFAULT
from deconvnet.pipeline.repro import LONG_RUNS

CLONES = (  # below one temporary folder: the path, and the processes of the CPU stages and of the training batches
    ("a/deconvnet", {"DECONVNET_CORES": "1", "DECONVNET_WORKERS": "0"}),
    ("another/and/much/longer/path/of-the-same-project", {"DECONVNET_CORES": "2", "DECONVNET_WORKERS": "2"}),
)


def stale(folder: Path = ROOT) -> list[str]:
    """Code, parameters and committed reports that are not those of the committed run, by `dvc status`; and long runs of
    another experiment. What git does not keep (data, models, executed notebooks) is not looked at.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json", "dvc.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=True)
    found = set()
    for stage, entries in json.loads(done.stdout).items():
        for entry in entries:
            if isinstance(entry, str):  # "changed command"
                found.add(f"dvc.yaml: {stage}")
                continue
            for path, change in (item for changes in entry.values() for item in changes.items()):
                if isinstance(change, dict):  # of params.yaml: {key: "modified"}
                    found |= {f"{path}: {key}" for key in change}
                elif change not in ("deleted", "not in cache") or in_git(folder, path):
                    found.add(path)
    of_run = folder / "reports" / "experiment.json"
    experiment = json.loads(of_run.read_text(encoding="utf-8"))["id"] if of_run.is_file() else "none"
    for name in LONG_RUNS:
        record = folder / "reports" / f"{name}.json"
        if json.loads(record.read_text(encoding="utf-8"))["experiment"] not in (experiment, None):
            found.add(f"reports/{name}.json")
    return sorted(found)


def in_git(folder: Path, path: str) -> bool:
    listed = ["git", "ls-files", "--error-unmatch", "--", path]
    return subprocess.run(listed, cwd=folder, capture_output=True, check=False).returncode == 0


def outputs(folder: Path) -> dict[str, str]:
    """Path → hash of every output of the run in `folder`, from its dvc.lock."""
    stages = YAML(typ="safe").load(folder / "dvc.lock")["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def differing(first: dict[str, str], second: dict[str, str]) -> list[str]:
    return sorted(path for path in first.keys() | second.keys() if first.get(path) != second.get(path))


def run_in_clone(clone: Path, profile: str, environment: dict[str, str]) -> Path:
    """Runs the whole pipeline from scratch in a new clone; returns the folder of its run."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    (clone / "dvc.lock").unlink()
    shown = ", ".join(f"{name}={value}" for name, value in environment.items())
    print(f"\n# {clone} with {shown}\n", flush=True)
    command = [sys.executable, "-m", "deconvnet.pipeline.repro", "--profile", profile]
    environment = os.environ | environment | {"PYTHONPATH": str(clone / "src")}
    subprocess.run(command, cwd=clone, env=environment, check=True)
    return clone if profile == DEFAULT else clone / "runs" / profile


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deconvnet.pipeline.verify", description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--here", action="store_true", help="one run, compared with the one in this folder")
    parser.add_argument("--quick", action="store_true", help="no run")
    arguments = parser.parse_args()
    if found := stale():
        print("These do not belong to the committed run (make repro makes its reports again, a long run its own):")
        print(*(f"  {path}" for path in found), sep="\n")
        return 1
    print("Code, parameters and reports belong together.")
    if arguments.quick:
        return 0
    here = ROOT if arguments.profile == DEFAULT else ROOT / "runs" / arguments.profile
    with tempfile.TemporaryDirectory() as folder:
        try:
            runs = (run_in_clone(Path(folder, path), arguments.profile, processes) for path, processes in CLONES)
            first, second = outputs(next(runs)), outputs(here if arguments.here else next(runs))
        except subprocess.CalledProcessError as error:
            print(f"A run failed with status {error.returncode}: nothing was compared.")
            return 1
    found = differing(first, second)
    print(f"\n# {len(first)} outputs of two runs of {arguments.profile}: {len(found)} differ")
    print(*(f"  {path}" for path in found), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

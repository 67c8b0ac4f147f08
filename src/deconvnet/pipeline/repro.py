"""What `make repro` does: check everything that can be checked, run DVC, show the results.

    python -m deconvnet.pipeline.repro                                  the embedded default, in the project itself
    python -m deconvnet.pipeline.repro --profile voc --data FOLDER      another profile, separately, in runs/voc

A separate run is a copy of the code with its own params.yaml, dvc.lock, data, models and reports. It shares the cache.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from deconvnet.config import params
from deconvnet.config.environment import environment
from deconvnet.config.errors import UserError, exit_on_user_error
from deconvnet.config.paths import ROOT, SOURCE
from deconvnet.config.schema import Proposals
from deconvnet.evaluation.methods import METHODS
from deconvnet.pipeline import preflight
from deconvnet.pipeline.provenance import record
from deconvnet.pipeline.submission import write_archive
from deconvnet.utils.files import write_atomic, write_json

DOWNLOADS = ROOT / "data" / "downloads"
CODE = ("src", "notebooks", "dvc.yaml", ".dvcignore")
LONG_RUNS = ("ablations", "seeds")  # each has a dvc.yaml and a dvc.lock of its own, in a folder of that name


def prepare_separate(settings: dict) -> Path:
    """runs/<profile> with a fresh copy of the code, the profile's params.yaml, and DVC sharing this project's cache."""
    folder = ROOT / "runs" / settings["profile"]
    folder.mkdir(parents=True, exist_ok=True)
    for name in CODE:
        if (ROOT / name).is_dir():
            if (folder / name).exists():
                shutil.rmtree(folder / name)
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".ipynb*")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, folder / name)
    make_paths_absolute(settings)
    (folder / "params.yaml").write_text(params.dump(settings), encoding="utf-8")
    for name in LONG_RUNS:  # their claims read "not run" until they are
        empty = folder / "reports" / f"{name}.json"
        if not empty.exists():
            write_json(empty, {"experiment": None})
            np.savez(empty.with_suffix(".npz"))
    if not (folder / ".dvc").is_dir():
        dvc(folder, "init", "--no-scm", "--quiet")
        dvc(folder, "cache", "dir", "../../.dvc/cache")
    return folder


def make_paths_absolute(settings: dict) -> None:
    """Paths in the settings start at the project's root; a separate run lies elsewhere."""
    paths = [(section, "path") for section in (settings["backbone"], *settings["weights"].values())]
    paths += [(settings["proposals"], "forest"), (settings["data"], "root"), (settings["data"], "test_root")]
    if settings["data"]["source"] == "voc2012":  # all such profiles share one folder of downloads
        (ROOT / settings["data"]["root"]).mkdir(parents=True, exist_ok=True)
    for section, key in paths:
        if section[key]:
            section[key] = str((ROOT / section[key]).resolve())


def run_command(folder: Path, *command: str) -> int:
    """Runs a command in `folder` with this environment's programs and the folder's code; returns its exit status."""
    variables = environment(folder, sys.executable) | {"SHELL": "/bin/sh"}  # another may have start-up files
    return subprocess.run(command, cwd=folder, env=variables, check=False).returncode


def follow_git(folder: Path) -> None:
    """Tells DVC whether `folder` is a Git repository, which it asks for: an unpacked archive is none."""
    local = folder / ".dvc" / "config.local"
    without = local.is_file() and "no_scm = true" in local.read_text(encoding="utf-8").lower()
    if (folder / ".git").exists():
        if without:
            dvc(folder, "config", "--quiet", "--local", "--unset", "core.no_scm")
    elif not (folder / ".dvc").is_dir():
        dvc(folder, "init", "--quiet", "--no-scm")
    elif not without:
        dvc(folder, "config", "--quiet", "--local", "core.no_scm", "true")


def dvc(folder: Path, *arguments: str) -> int:
    return run_command(folder, sys.executable, "-m", "dvc", *arguments)


def reproduce(folder: Path, arguments: list[str]) -> int:
    """`dvc repro`. DVC deletes a stage's outputs before it runs: a failed or killed stage's reports are put back."""
    reports, kept = folder / "reports", folder / ".dvc" / "tmp" / "reports"
    copy_missing(kept, reports)  # of a run that was killed
    shutil.rmtree(kept, ignore_errors=True)
    copy_missing(reports, kept)
    status = dvc(folder, "repro", *arguments)
    if status:
        copy_missing(kept, reports)
    elif not arguments:
        for path in reports.glob("notebooks/*.failed.ipynb"):  # of a stage that has now succeeded
            path.unlink()
    shutil.rmtree(kept, ignore_errors=True)
    return status


def copy_missing(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        copy = target / path.relative_to(source)
        if path.is_file() and not copy.exists():
            write_atomic(copy, path.read_bytes())


def reproduce_long_run(folder: Path, name: str, targets: list[str]) -> int:
    """Trains what ablations/dvc.yaml or seeds/dvc.yaml says, and collects it; finished trainings are kept."""
    if not (folder / name).is_dir():
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("dvc.lock"))
    stages = folder / name / "dvc.yaml"
    if status := dvc(folder, "repro", *(f"{name}/dvc.yaml:{target}" for target in targets)):
        return status
    # DVC does not run a frozen stage's command, even by force: it is run here, and DVC records the result.
    collect = params.read_yaml(stages)["stages"]["collect"]["cmd"].split()
    return run_command(folder, *collect) or dvc(folder, "commit", "--force", f"{name}/dvc.yaml:collect")


def show(folder: Path) -> None:
    results = (folder / "reports" / "tables" / "table1.md").read_text(encoding="utf-8")
    print("\n" + results.split("## Table 1")[0].strip())
    print("\nTables     ", folder / "reports" / "tables")
    print("Figures    ", folder / "reports" / "figures")
    print("Notebooks  ", folder / "reports" / "notebooks")
    print("Report     ", folder / "reports" / "site" / "index.html")


def announce(settings: dict) -> None:
    """Says what a run on VOC 2012 needs, and downloads the structured forest if the settings name an address."""
    if settings["data"]["source"] == "voc2012":
        from deconvnet.pipeline import forecast  # late: it takes seconds, and no other source needs it

        print(forecast.text(params.validate(settings, "The profile")), flush=True)
    if "://" in (settings["proposals"]["forest"] or ""):
        from deconvnet.proposals.edges import fetch_forest  # late, likewise

        settings["proposals"]["forest"] = str(fetch_forest(Proposals(**settings["proposals"]), DOWNLOADS))


@exit_on_user_error()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deconvnet.pipeline.repro", description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default=preflight.DEFAULT)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seed", type=int, help="a separate run with other seeds")
    parser.add_argument("--ablations", action="store_true", help="then the ablations, and the claims with them")
    parser.add_argument("--seeds", type=int, default=0, metavar="N", help="then the default with N other seeds")
    arguments, for_dvc = parser.parse_known_args()
    settings = preflight.settings_of(arguments.profile, arguments.data, arguments.seed)
    checked = preflight.check(settings)
    seeds = params.read_yaml(ROOT / "seeds" / "dvc.yaml")["stages"]["train"]["matrix"]["seed"]
    if arguments.seeds > len(seeds):
        raise UserError(
            f"N={arguments.seeds}, but seeds/dvc.yaml lists the seeds {seeds}: add more there, or take less."
        )
    announce(settings)
    if settings["profile"] == preflight.DEFAULT:
        folder = ROOT
        follow_git(folder)
    else:
        folder = prepare_separate(settings)
    preflight.list_source(checked, folder / SOURCE.relative_to(ROOT))
    steps = [lambda: reproduce(folder, for_dvc)]
    if arguments.ablations:
        steps.append(lambda: reproduce_long_run(folder, "ablations", ["train"]))
    if arguments.seeds:
        targets = [f"train@{seed}" for seed in seeds[: arguments.seeds]]
        steps.append(lambda: reproduce_long_run(folder, "seeds", targets))
    if len(steps) > 1:
        steps.append(steps[0])
    for step in steps:
        if status := step():
            sys.exit(status)
    record(folder)
    show(folder)
    if settings["data"]["test_root"]:
        print("For the VOC server:", *(write_archive(folder, method) for method in METHODS), sep="\n  ")


if __name__ == "__main__":
    main()

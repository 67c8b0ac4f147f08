"""What `make repro` does: check everything that can be checked, run DVC, show the results.

    python -m deconvnet.pipeline                                  the embedded default, in the project itself
    python -m deconvnet.pipeline --profile voc --data FOLDER      another profile, apart, under runs/voc

A run apart is a copy of the code with its own params.yaml, dvc.lock, data, models and reports; it shares DVC's cache.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from deconvnet import params, tables, voc
from deconvnet.errors import UserError, plainly
from deconvnet.files import write_whole
from deconvnet.paths import ROOT
from deconvnet.provenance import EXTRA, REPORTING, record, stale_reports, write_json
from deconvnet.submission import write_archive

DEFAULT = "icons"
SOLVERS = ("boundaries", "backbone", "stage1", "stage2", "fcn")
DOWNLOADS = ROOT / "data" / "downloads"
CODE = ("src", "notebooks", "dvc.yaml", ".dvcignore")


def settings_of(profile: str, data: Path | None, seed: int = 0) -> dict:
    """The default profile is params.yaml as it stands, others are composed from conf/. Raises UserError if unsound.

    With `seed`, 100 times that is added to each seed of training: a run apart, under its own name.
    """
    if profile == DEFAULT and data:
        raise UserError(f"DATA goes with PROFILE=voc: the default profile makes its own data, so {data} has no use.")
    settings = params.read_yaml(params.PARAMS) if profile == DEFAULT and not seed else params.compose(profile)
    if data:
        settings = params.merge(settings, {"data": {"source": "folder", "root": str(data.expanduser().resolve())}})
    if seed:
        solvers = {name: {"seed": settings[name]["seed"] + 100 * seed} for name in SOLVERS}
        settings = params.merge(settings, solvers | {"profile": f"{profile}-seed{seed}"})
    return settings


def check(settings: dict) -> None:
    """Finds what would otherwise fail after a while: wrong settings, a data folder that is not sound."""
    name = "params.yaml" if settings.get("profile") == DEFAULT else f"Profile {settings.get('profile')}"
    checked = params.validate(settings, name)
    if checked.data.source == "folder":
        if not checked.data.root:
            raise UserError(f"PROFILE={checked.profile} needs a folder in VOC layout: add DATA=/path/to/folder.")
        root = Path(checked.data.root)
        voc.require(root, ["train", *(["dev"] if voc.list_path(root, "dev").exists() else []), "val"])
    if test := checked.data.test_root:
        try:
            names = voc.read_list(ROOT / test, "test")
            if not names:
                raise UserError(f"{voc.list_path(ROOT / test, 'test')} is empty.")
            voc.read_image(ROOT / test, names[0])
        except UserError as error:
            raise UserError(f"data.test_root: {error}") from None
    check_weights(checked)
    forest = checked.proposals.forest
    if forest and "://" not in forest and not (ROOT / forest).is_file():
        raise UserError(f"proposals.forest: {forest} does not exist; with edges: learned none is needed.")


def check_weights(checked: params.Params) -> None:
    """Reads the .caffemodel files that the settings name, once, before anything else takes hours."""
    from deconvnet import backbone, caffe  # imported here because it takes seconds and most runs have no such file

    wanted = (
        (checked.backbone.path, lambda: backbone.plain(backbone.make_deconvnet(checked).encoder)),
        (checked.weights.deconvnet.path, lambda: backbone.make_deconvnet(checked)),
        (checked.weights.fcn8s.path, lambda: backbone.make_fcn(checked)),
    )
    for path, make in wanted:
        if not path:
            continue
        if not (ROOT / path).is_file():
            raise UserError(f"{path} does not exist: put the .caffemodel there, or name another path in conf/.")
        layers = caffe.read(ROOT / path)
        try:
            caffe.convert(make(), layers)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


def prepare_apart(settings: dict) -> Path:
    """runs/<profile> with a fresh copy of the code, the profile's params.yaml and DVC sharing this project's cache."""
    folder = ROOT / "runs" / settings["profile"]
    folder.mkdir(parents=True, exist_ok=True)
    for name in CODE:
        if (ROOT / name).is_dir():
            if (folder / name).exists():
                shutil.rmtree(folder / name)
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", ".ipynb*")
            )
        else:
            shutil.copy2(ROOT / name, folder / name)
    named = [(section, "path") for section in (settings["backbone"], *settings["weights"].values())]
    named += [(settings["proposals"], "forest"), (settings["data"], "test_root")]
    if settings["data"]["source"] == "voc2012":  # all such profiles share one folder of downloads
        named.append((settings["data"], "root"))
        (ROOT / settings["data"]["root"]).mkdir(parents=True, exist_ok=True)
    for section, key in named:
        if section[key]:
            section[key] = str((ROOT / section[key]).resolve())  # it is named from the project's root
    (folder / "params.yaml").write_text(params.dump(settings))
    for name in EXTRA:  # read as not done until they are
        empty = folder / "reports" / f"{name}.json"
        if not empty.exists():
            write_json(empty, {"experiment": None})
            np.savez(empty.with_suffix(".npz"))
    if not (folder / ".dvc").is_dir():
        dvc(folder, "init", "--no-scm", "--quiet")
        dvc(folder, "cache", "dir", "../../.dvc/cache")
    return folder


def call(folder: Path, *command: str) -> int:
    """Runs a command in `folder` with this environment's programs first on PATH and the folder's code on PYTHONPATH."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(folder / "src"),
        "DVC_NO_ANALYTICS": "true",
    }
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def dvc(folder: Path, *arguments: str) -> int:
    return call(folder, "dvc", *arguments)


def reproduce(folder: Path, arguments: list[str]) -> int:
    """`dvc repro`. DVC removes a stage's outputs before it runs: what a failed or killed one took from reports/ is put
    back.
    """
    reports, kept = folder / "reports", folder / ".dvc" / "tmp" / "reports"
    copy_missing(kept, reports)  # of a run that was killed
    shutil.rmtree(kept, ignore_errors=True)
    copy_missing(reports, kept)
    status = dvc(folder, "repro", *arguments)
    if not status and not arguments and stale_reports(folder):
        print("\nCode has changed and its results have not: the reports are made again, to say so.\n", flush=True)
        status = dvc(folder, "repro", "--force", "--single-item", *REPORTING)
    if status:
        copy_missing(kept, reports)
    elif not arguments:
        for path in reports.glob(
            "notebooks/*.failed.ipynb"
        ):  # of a killed run, whose stage DVC now took from its cache
            path.unlink()
    shutil.rmtree(kept, ignore_errors=True)
    return status


def copy_missing(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        there = target / path.relative_to(source)
        if path.is_file() and not there.exists():
            write_whole(there, path.read_bytes())


def reproduce_extra(folder: Path, name: str, targets: list[str]) -> int:
    """Trains what ablations/dvc.yaml or seeds/dvc.yaml says, and collects it; each training that is done is kept."""
    if not (folder / name).is_dir():
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("dvc.lock"))
    stages = folder / name / "dvc.yaml"
    if status := dvc(folder, "repro", *(f"{name}/dvc.yaml:{target}" for target in targets)):
        return status
    # A frozen stage's command DVC does not run, not even by force: it is run here, and DVC told of what came of it.
    collect = params.read_yaml(stages)["stages"]["collect"]["cmd"].split()
    return call(folder, *collect) or dvc(folder, "commit", "--force", f"{name}/dvc.yaml:collect")


def show(folder: Path) -> None:
    results = (folder / "reports" / "tables" / "table1.md").read_text()
    print("\n" + results.split("## Table 1")[0].strip())
    print("\nTables     ", folder / "reports" / "tables")
    print("Figures    ", folder / "reports" / "figures")
    print("Notebooks  ", folder / "reports" / "notebooks")
    print("Report     ", folder / "reports" / "site" / "index.html")


@plainly()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deconvnet.pipeline", description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default=DEFAULT)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="trains apart, with other seeds")
    parser.add_argument("--ablations", action="store_true", help="then the ablations, and the ledger with them")
    parser.add_argument(
        "--seeds", type=int, default=0, metavar="N", help="then the default with N other seeds, likewise"
    )
    arguments, for_dvc = parser.parse_known_args()
    settings = settings_of(arguments.profile, arguments.data, arguments.seed)
    check(settings)
    if settings["data"]["source"] == "voc2012":
        from deconvnet import forecast  # imported here because it takes seconds and no other source needs it

        print(forecast.text(params.validate(settings, "The profile")), flush=True)
    if "://" in (settings["proposals"]["forest"] or ""):
        from deconvnet.proposals import fetch_forest  # likewise

        settings["proposals"]["forest"] = str(fetch_forest(params.Proposals(**settings["proposals"]), DOWNLOADS))
    seeds = params.read_yaml(ROOT / "seeds" / "dvc.yaml")["stages"]["train"]["matrix"]["seed"]
    if arguments.seeds > len(seeds):
        raise UserError(
            f"N={arguments.seeds}, but seeds/dvc.yaml lists the seeds {seeds}: write more there, or take less."
        )
    folder = ROOT if settings["profile"] == DEFAULT else prepare_apart(settings)
    steps = [lambda: reproduce(folder, for_dvc)]
    if arguments.ablations:
        steps.append(lambda: reproduce_extra(folder, "ablations", ["train"]))
    if arguments.seeds:
        targets = [f"train@{seed}" for seed in seeds[: arguments.seeds]]
        steps.append(lambda: reproduce_extra(folder, "seeds", targets))
    if len(steps) > 1:
        steps.append(steps[0])
    for step in steps:
        if status := step():
            sys.exit(status)
    record(folder)
    show(folder)
    if settings["data"]["test_root"]:
        print("For the VOC server:", *(write_archive(folder, method) for method in tables.METHODS), sep="\n  ")


if __name__ == "__main__":
    main()

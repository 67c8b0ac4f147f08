"""What `make studies` does: trains the cells of studies/plan.yaml that have no result in reports/studies yet.

    python -m deconvnet.pipeline.studies [--only deconvnet fcn8s] [--budgets 1 2] [--seeds 2]
    python -m deconvnet.pipeline.studies --candidates        the candidates for the small network, on dev

Each seed is a run of its own, runs/studies-seed<k>, with its own boundaries and backbone. A cell that was interrupted
resumes from its checkpoint; one that is done is copied into reports/studies, which git keeps.
"""

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from deconvnet.config import params
from deconvnet.config.errors import UserError, exit_on_user_error
from deconvnet.config.paths import REPORTS, ROOT
from deconvnet.pipeline import forecast, preflight, provenance
from deconvnet.pipeline.repro import dvc, prepare_separate
from deconvnet.utils.files import write_json

PREPARED = ("experiment", "proposals", "backbone")  # stages of the pipeline that a seed's cells need
ENSEMBLES = {"edeconvnet": ("deconvnet", "fcn8s"), "two_deconvnet": ("deconvnet",), "two_fcn8s": ("fcn8s",)}


@dataclass(frozen=True)
class Cell:
    arm: str
    budget: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-x{self.budget}"

    def result(self, profile: str) -> Path:
        return results(profile) / f"{self.name}-s{self.seed}.json"


def results(profile: str) -> Path:
    """reports/studies, which git keeps; of another profile than studies, a folder that it does not."""
    return REPORTS / "studies" if profile == "studies" else ROOT / "runs" / f"{profile}-studies"


def planned(path: Path = ROOT / "studies" / "plan.yaml") -> list[Cell]:
    """Short cells before long ones, so that an interrupted study has most of its cells."""
    cells = [Cell(arm, int(budget), seed) for arm, budgets in params.read_yaml(path).items()
             for budget, seeds in budgets.items() for seed in seeds]  # fmt: skip
    return sorted(cells, key=lambda cell: cell.budget)


def select(cells: list[Cell], only: list[str], budgets: list[int], seeds: list[int]) -> list[Cell]:
    """Of the planned cells those of some arms, budgets and seeds; an empty list means all. Raises UserError if a name
    is not planned.
    """
    for what, wanted, known in (
        ("arm", only, {c.arm for c in cells}), ("budget", budgets, {c.budget for c in cells}),
        ("seed", seeds, {c.seed for c in cells}),
    ):  # fmt: skip
        if unknown := sorted({*wanted} - known):
            raise UserError(
                f"studies/plan.yaml has no {what} {unknown[0]}; it has {', '.join(map(str, sorted(known)))}."
            )
    kept = [c for c in cells if (not only or c.arm in only) and (not budgets or c.budget in budgets)]
    return [c for c in kept if not seeds or c.seed in seeds]


def announce(cells: list[Cell], settings: dict) -> None:
    """What is going to be trained, and at least how long it takes on this machine."""
    checked = params.validate(settings, "The profile")
    per_second = forecast.speed()
    once = sum(forecast.forecast(checked, per_second)[stage] for stage in ("stage1", "stage2"))
    trained = [cell for cell in cells if cell.arm not in ENSEMBLES]
    for cell in trained:
        print(f"  {cell.name}, seed {cell.seed}: at least {cell.budget * once:.1f} hours")
    total = once * sum(cell.budget for cell in trained)
    print(f"{len(trained)} trainings: at least {total:.1f} hours on this machine, by their operations.", flush=True)


def prepare(seed: int, profile: str) -> Path:
    """The run of a seed, with data, proposals and backbone. Raises SystemExit with DVC's status if a stage fails."""
    settings = preflight.settings_of(profile, None, seed)
    folder = ROOT / "runs" / settings["profile"]
    if not (folder / "studies").is_dir():
        prepare_separate(settings)
        preflight.list_source(preflight.check(settings), folder / "data" / "source.json")
        shutil.copytree(ROOT / "studies", folder / "studies", ignore=shutil.ignore_patterns("dvc.lock"))
        check(dvc(folder, "repro", *PREPARED))
    return folder


def train(cell: Cell, profile: str) -> Path:
    """Trains an arm in its seed's run, with the learning rate that was chosen for it, and returns the run's folder."""
    folder, name = prepare(cell.seed, profile), f"rate-{cell.arm}.json"
    if not (known := results(profile) / name).is_file():
        check(dvc(folder, "repro", f"studies/dvc.yaml:rate@{cell.arm}"))
        write_json(known, read(folder / "data" / "studies" / name) | {"seed": cell.seed})
    write_json(folder / "reports" / "studies" / name, read(known))
    check(dvc(folder, "repro", f"studies/dvc.yaml:cell@{cell.arm}-{cell.budget}"))
    return folder


def following(cell: Cell) -> int:
    """The seed whose network is the second of two of one family: the next in the plan, after the last the first."""
    seeds = [c.seed for c in planned() if (c.arm, c.budget) == (ENSEMBLES[cell.arm][0], cell.budget)]
    return seeds[(seeds.index(cell.seed) + 1) % len(seeds)]


def combine(cell: Cell, profile: str) -> Path:
    """Evaluates an ensemble; members that are not there are trained first. Returns the run's folder."""
    for arm in ENSEMBLES[cell.arm]:
        folder = train(Cell(arm, cell.budget, cell.seed), profile)
    stage = f"edeconvnet@{cell.budget}"
    if cell.arm != "edeconvnet":
        model = Path("models") / "studies" / f"{arm}-x{cell.budget}.safetensors"
        source = train(Cell(arm, cell.budget, following(cell)), profile) / model
        target = folder / "models" / "studies_other" / model.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
        stage = f"two@{arm}-{cell.budget}"
    check(dvc(folder, "repro", f"studies/dvc.yaml:{stage}"))
    return folder


def run(cell: Cell, profile: str) -> None:
    """Trains or combines one cell and keeps its result, with the machine and the hours that it took."""
    folder = combine(cell, profile) if cell.arm in ENSEMBLES else train(cell, profile)
    found = folder / "data" / "studies" / f"{cell.name}.json"
    record, of_run = read(found), provenance.known(folder)
    if cell.arm.startswith("two_"):
        record["other"] = following(cell)
    record |= {"machine": of_run["devices"][cell.name], "hours": of_run["seconds"][cell.name] / 3600}
    write_json(cell.result(profile), record)
    shutil.copy2(found.with_suffix(".npz"), cell.result(profile).with_suffix(".npz"))


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def check(status: int) -> None:
    if status:
        sys.exit(status)


def search(seed: int, profile: str) -> None:
    """Trains the candidates for the small network that have no result yet, in the run of a seed, and keeps those."""
    folder, kept = prepare(seed, profile), results(profile) / "candidates.json"
    known = read(kept)
    for name in params.read_yaml(ROOT / "studies" / "candidates.yaml"):
        if name not in known:
            check(dvc(folder, "repro", f"studies/dvc.yaml:candidate@{name}"))
            known[name] = read(folder / "data" / "studies" / f"candidate-{name}.json")
            write_json(kept, known)


@exit_on_user_error()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deconvnet.pipeline.studies", description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="studies")
    parser.add_argument("--only", nargs="*", default=[], metavar="ARM")
    parser.add_argument("--budgets", nargs="*", type=int, default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[])
    parser.add_argument("--candidates", action="store_true", help="train the candidates for the small network")
    arguments = parser.parse_args()
    if arguments.candidates:
        search((arguments.seeds or [planned()[0].seed])[0], arguments.profile)
        return
    cells = select(planned(), arguments.only, arguments.budgets, arguments.seeds)
    missing = [cell for cell in cells if not cell.result(arguments.profile).is_file()]
    print(f"{len(cells) - len(missing)} of {len(cells)} cells have a result in {results(arguments.profile)}.")
    if missing:
        announce(missing, preflight.settings_of(arguments.profile, None))
    for cell in missing:
        run(cell, arguments.profile)
    if arguments.profile == "studies":
        check(dvc(ROOT, "repro", "studies/dvc.yaml:together"))


if __name__ == "__main__":
    main()

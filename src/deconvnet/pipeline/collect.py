"""Collects the results of long runs, which `make repro` never repeats, in a few small files that git keeps.

python -m deconvnet.pipeline.collect ablations    data/ablations/*  ->  reports/ablations.npz and .json
python -m deconvnet.pipeline.collect seed 1       runs/icons-seed1  ->  data/seeds/1.npz and .json
python -m deconvnet.pipeline.collect seeds        data/seeds/*      ->  reports/seeds.* and tolerance.json
python -m deconvnet.pipeline.collect tolerance    committed metrics ->  reports/tolerance.json
python -m deconvnet.pipeline.collect quick        runs/quick*       ->  reports/quick.json
"""

import json
import sys
from pathlib import Path

from deconvnet.config import params
from deconvnet.config.errors import UserError, exit_on_user_error
from deconvnet.config.paths import ABLATIONS, REPORTS, ROOT
from deconvnet.evaluation import claims, experiment, per_image, tolerance
from deconvnet.utils.files import write_json

COUNTS = ("methods", "proposals", "decoder")  # data/counts/<name>.npz of a run: all that the claims need


def records(folder: Path) -> dict[str, dict]:
    """{name: record} of a folder, which must all be of one experiment. Raises UserError."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    if not found:
        raise UserError(f"{folder} holds no results: run make ablations or make seeds.")
    if len({record["experiment"] for record in found.values()}) > 1:
        raise UserError(f"{folder} holds results of different settings or data: delete it and run them again.")
    return found


def ablations() -> None:
    """The variants that were trained here; others stay as they are in reports/, if they are of the same experiment."""
    folder, collected = ABLATIONS, REPORTS / "ablations.json"
    found = records(folder)
    known = next(iter(found.values()))["experiment"]
    together = claims.load_same_experiment(REPORTS / "ablations", known)
    variants = json.loads(collected.read_text(encoding="utf-8"))["variants"] if together else {}
    together |= {key: value for name in found for key, value in per_image.load(folder / f"{name}.npz").items()}
    per_image.save(REPORTS / "ablations.npz", together)
    write_json(collected, {"experiment": known, "variants": variants | found})


def seed(number: str) -> None:
    run, folder = ROOT / "runs" / f"icons-seed{number}", ROOT / "data" / "seeds"
    together = {}
    for name in COUNTS:
        together |= per_image.load(run / "data" / "counts" / f"{name}.npz")
    per_image.save(folder / f"{number}.npz", {f"{number}/{key}": value for key, value in together.items()})
    experiment_id = experiment.experiment_id(params.load(run / "params.yaml"), run)
    write_json(folder / f"{number}.json", {"experiment": experiment_id, "metrics": metrics_of(run)})


def seeds() -> None:
    folder = ROOT / "data" / "seeds"
    found = records(folder)
    together = {key: value for name in found for key, value in per_image.load(folder / f"{name}.npz").items()}
    per_image.save(REPORTS / "seeds.npz", together)
    metrics = {name: record["metrics"] for name, record in found.items()}
    write_json(REPORTS / "seeds.json", {"experiment": next(iter(found.values()))["experiment"], "metrics": metrics})
    default_tolerance()


def default_tolerance() -> None:
    write_json(REPORTS / "tolerance.json", tolerance.spread(default_runs()))


def default_runs() -> list[dict]:
    """The committed metrics of the default and of its repetitions with other seeds."""
    return [metrics_of(ROOT), *json.loads((REPORTS / "seeds.json").read_text(encoding="utf-8"))["metrics"].values()]


def quick() -> None:
    """From runs/quick (make repro PROFILE=quick) and its repetitions (SEED=1 and so on), if there are any. The variance
    over seeds is taken to be the default's.
    """
    runs = [ROOT / "runs" / "quick", *sorted((ROOT / "runs").glob("quick-seed*"))]
    write_json(REPORTS / "quick.json", tolerance.spread([metrics_of(run) for run in runs], spread_of=default_runs()))


def metrics_of(run: Path) -> dict:
    return json.loads((run / "reports" / "metrics.json").read_text(encoding="utf-8"))


COMMANDS = {"ablations": ablations, "seed": seed, "seeds": seeds, "tolerance": default_tolerance, "quick": quick}

if __name__ == "__main__":
    with exit_on_user_error():
        COMMANDS[sys.argv[1]](*sys.argv[2:])

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

import numpy as np

from deconvnet.claims import judge, tolerance
from deconvnet.config import params
from deconvnet.config.errors import UserError, exit_on_user_error
from deconvnet.config.paths import ABLATIONS, REPORTS, ROOT, VOC
from deconvnet.data import voc
from deconvnet.evaluation import experiment, per_image
from deconvnet.images import store
from deconvnet.inference import ensemble
from deconvnet.utils import parallel
from deconvnet.utils.files import write_json

COUNTS = ("methods", "proposals", "decoder", "diagnosis")  # data/counts/<name>.npz of a run


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
    together = judge.load_same_experiment(REPORTS / "ablations", known)
    variants = json.loads(collected.read_text(encoding="utf-8"))["variants"] if together else {}
    together |= {key: value for name in found for key, value in per_image.load(folder / f"{name}.npz").items()}
    per_image.save(REPORTS / "ablations.npz", together)
    write_json(collected, {"experiment": known, "variants": variants | found})


def seed(number: str) -> None:
    run, folder = run_of(number), ROOT / "data" / "seeds"
    together = {}
    for name in COUNTS:
        together |= per_image.load(run / "data" / "counts" / f"{name}.npz")
    per_image.save(folder / f"{number}.npz", {f"{number}/{key}": value for key, value in together.items()})
    experiment_id = experiment.experiment_id(params.load(run / "params.yaml"), run)
    write_json(folder / f"{number}.json", {"experiment": experiment_id, "metrics": metrics_of(run)})


def run_of(number: str) -> Path:
    """The folder of the default with other seeds, or of the default itself ("own")."""
    return ROOT if number == "own" else ROOT / "runs" / f"icons-seed{number}"


def pairs(numbers: list[str]) -> dict:
    """<number>/counts/two_<model>: the ensemble of a run's network with the same network of the next run, by the mean
    of both probability maps. What any two networks gain is the control for claim C2.
    """
    names, found = voc.read_list(VOC, "val"), {}
    for first, second in zip(numbers, [*numbers[1:], numbers[0]], strict=True):
        for model in ("deconvnet", "fcn8s"):
            folders = [str(run_of(number) / "data" / "scores" / model) for number in (first, second)]

            def task(name: str, folders: list[str] = folders):
                scores = [store.read_scores(folder, name) for folder in folders]  # an absolute path is taken as it is
                labels = ensemble.combine(*scores, "mean").argmax(axis=0)
                return per_image.image_counts(voc.read_labels(VOC, name), labels)

            done = list(parallel.process_map(task, names, f"{model} of {first} with that of {second}"))
            found[f"{first}/counts/two_{model}"] = np.stack(done)
    return found


def seeds() -> None:
    folder = ROOT / "data" / "seeds"
    found = records(folder)
    together = {key: value for name in found for key, value in per_image.load(folder / f"{name}.npz").items()}
    together |= pairs(["own", *sorted(found)])
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

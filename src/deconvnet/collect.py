"""Brings the results of long runs, which `make repro` never repeats, into a few small files that git keeps.

python -m deconvnet.collect ablations       data/ablations/*  ->  reports/ablations.npz and .json
python -m deconvnet.collect seed 1          runs/icons-seed1  ->  data/seeds/1.npz and .json
python -m deconvnet.collect seeds           data/seeds/*      ->  reports/seeds.* and tolerance.json
"""

import json
import sys
from pathlib import Path

from deconvnet import claims, params, provenance, samples, tolerance
from deconvnet.errors import UserError
from deconvnet.paths import ABLATIONS, REPORTS, ROOT

SAMPLES = ("methods", "windows", "decoder")  # data/samples/<name>.npz of a run: all that the ledger measures


def records(folder: Path) -> dict[str, dict]:
    """{name: record} of a folder, which must all be of one experiment. Raises UserError."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if not found:
        raise UserError(f"{folder} holds no results: make ablations and make seeds put them there.")
    if len({record["experiment"] for record in found.values()}) > 1:
        raise UserError(f"{folder} holds results of different settings or data: delete it, and run them again.")
    return found


def ablations() -> None:
    """What was trained here; a variant that was not stays as it is in reports/, if that is of the same experiment."""
    folder, collected = ABLATIONS, REPORTS / "ablations.json"
    found = records(folder)
    experiment = next(iter(found.values()))["experiment"]
    together = claims.belonging(REPORTS / "ablations", experiment)
    variants = json.loads(collected.read_text())["variants"] if together else {}
    together |= {key: value for name in found for key, value in samples.read(folder / f"{name}.npz").items()}
    samples.write(REPORTS / "ablations.npz", together)
    provenance.write_json(collected, {"experiment": experiment, "variants": variants | found})


def seed(number: str) -> None:
    run, folder = ROOT / "runs" / f"icons-seed{number}", ROOT / "data" / "seeds"
    together = {}
    for name in SAMPLES:
        together |= samples.read(run / "data" / "samples" / f"{name}.npz")
    samples.write(folder / f"{number}.npz", {f"{number}/{key}": value for key, value in together.items()})
    record = {"experiment": provenance.experiment_id(params.load(run / "params.yaml"), run)}
    record["metrics"] = json.loads((run / "reports" / "metrics.json").read_text())
    provenance.write_json(folder / f"{number}.json", record)


def seeds() -> None:
    folder = ROOT / "data" / "seeds"
    found = records(folder)
    together = {key: value for name in found for key, value in samples.read(folder / f"{name}.npz").items()}
    samples.write(REPORTS / "seeds.npz", together)
    metrics = {name: record["metrics"] for name, record in found.items()}
    experiment = next(iter(found.values()))["experiment"]
    provenance.write_json(REPORTS / "seeds.json", {"experiment": experiment, "metrics": metrics})
    default = json.loads((REPORTS / "metrics.json").read_text())
    provenance.write_json(REPORTS / "tolerance.json", tolerance.spread([default, *metrics.values()]))


def main(what: str, *arguments: str) -> None:
    try:
        {"ablations": ablations, "seed": seed, "seeds": seeds}[what](*arguments)
    except UserError as error:
        sys.exit(f"\n{error}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

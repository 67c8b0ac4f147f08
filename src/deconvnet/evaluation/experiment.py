"""The id of an experiment: what runs must share to be compared. It is a hash over every setting but the seeds of
training, and over the data. Code is not in it, since a change of code that changes no number changes no result.

    python -m deconvnet.evaluation.experiment        writes reports/experiment.json: the DVC stage `experiment`
"""

import json
from pathlib import Path

import yaml

from deconvnet.config import params
from deconvnet.config.paths import EXPERIMENT, ROOT
from deconvnet.config.schema import Params
from deconvnet.utils.files import fingerprint, write_json

NO_SETTINGS_OF_RESULTS = {"profile", "report"}  # a name, and how results are shown


def data_hash(root: Path = ROOT) -> str | None:
    """DVC's hash of data/voc in the run in the folder `root`; None before its stage `data` has ended."""
    lock = root / "dvc.lock"
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"] if lock.is_file() else {}
    return next((out["md5"] for out in stages.get("data", {}).get("outs", []) if out["path"] == "data/voc"), None)


def experiment_id(settings: Params, root: Path = ROOT) -> str:
    """8 hexadecimal digits for the settings and the data of the run in the folder `root`."""
    # Optional settings at their defaults are as if absent: a new one leaves the ids of earlier results valid.
    sections = settings.model_dump(mode="json", exclude=NO_SETTINGS_OF_RESULTS, exclude_defaults=True)
    for section in sections.values():
        if "lr" in section:  # a training
            del section["seed"]
    return fingerprint(sections, data_hash(root))[:8]


def read() -> str:
    """The id of this run, which its stage `experiment` has written."""
    return json.loads(EXPERIMENT.read_text(encoding="utf-8"))["id"]


if __name__ == "__main__":
    write_json(EXPERIMENT, {"id": experiment_id(params.load()), "data": data_hash()})

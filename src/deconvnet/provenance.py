"""Which code, parameters and data a result comes from.

A tracked file cannot name the commit that will contain it, so results carry a content id: a hash over the code,
notebooks and parameters of every stage behind them and the data's own hash, as DVC has just recorded them in dvc.lock.
"""

import hashlib
import json
import math

import yaml

from deconvnet.params import Params
from deconvnet.paths import ROOT

# The stages that only look at results. They ask for the id, and their own entries are those of the run before.
REPORTING = ("evaluate", "windows", "decoder", "claims", "figures", "report")


def content_id() -> str:
    """12 hexadecimal digits over what the stages so far were made from; "unlocked" where DVC has not run."""
    lock = ROOT / "dvc.lock"
    if not lock.is_file():
        return "unlocked"
    stages = yaml.safe_load(lock.read_text())["stages"]
    made = {out["path"] for stage in stages.values() for out in stage.get("outs", [])}
    sources = {}
    for name, stage in stages.items():
        if name not in REPORTING:
            code = {dep["path"]: dep["md5"] for dep in stage["deps"] if dep["path"] not in made}
            sources[name] = [code, stage.get("params", {})]
    sources["data files"] = [out["md5"] for out in stages["data"]["outs"] if out["path"] == "data/voc"]
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()[:12]


def experiment_id(settings: Params) -> str:
    """8 hexadecimal digits over every setting but the seeds of training: what runs must share to be compared."""

    def without_seeds(section):
        return {k: v for k, v in section.items() if k != "seed"} if "lr" in section else section

    sections = settings.model_dump(mode="json", exclude={"profile", "report"})
    text = json.dumps({name: without_seeds(section) for name, section in sections.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def write_json(path, content) -> None:
    """JSON with sorted keys and rounded floats, so that git and DVC compare values and not noise; NaN becomes null."""

    def rounded(value):
        if isinstance(value, dict):
            return {key: rounded(v) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return [rounded(v) for v in value]
        if isinstance(value, float):
            return round(value, 5) if math.isfinite(value) else None
        return value

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(content), indent=2, sort_keys=True) + "\n")

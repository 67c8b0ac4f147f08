"""The stages of the dvc.yaml files, with foreach and matrix spelled out."""

from itertools import product
from pathlib import Path

import yaml

from deconvnet.config.paths import ROOT


def read(path: Path) -> dict[str, dict]:
    """{name: stage} of a dvc.yaml, as DVC names them: train@stage1, infer@fcn8s."""
    pipeline, found = yaml.safe_load(path.read_text()), {}
    variables = {k: v for part in pipeline.get("vars", []) if isinstance(part, dict) for k, v in part.items()}
    for name, stage in pipeline["stages"].items():
        if "foreach" in stage:
            for key, item in variables[stage["foreach"].strip("${}")].items():
                values = {"key": key} | {f"item.{k}": v for k, v in item.items()}
                found[f"{name}@{key}"] = substituted(stage["do"], values)
        elif "matrix" in stage:
            for case in product(*stage["matrix"].values()):
                values = {f"item.{variable}": str(value) for variable, value in zip(stage["matrix"], case, strict=True)}
                found[f"{name}@{'-'.join(map(str, case))}"] = substituted(stage, values)
        else:
            found[name] = stage
    return found


def substituted(stage: dict, values: dict[str, str]) -> dict:
    text = yaml.safe_dump(stage)
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    return yaml.safe_load(text)


def outputs(stage: dict) -> list[str]:
    listed = stage.get("outs", []) + stage.get("metrics", [])
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


DEFAULT = read(ROOT / "dvc.yaml")
ABLATIONS = {
    f"ablations/{name}": stage for name, stage in read(ROOT / "ablations" / "dvc.yaml").items() if name != "collect"
}
STUDIES = read(ROOT / "studies" / "dvc.yaml")  # all cells are alike: one of each kind is looked at
SHOWN = ("rate@deconvnet", "cell@deconvnet-1", "cell@fcn8s-1", "edeconvnet@1", "candidate@today", "together")
STUDIES = {f"studies/{name}": STUDIES[name] for name in SHOWN}
STAGES = DEFAULT | ABLATIONS | STUDIES

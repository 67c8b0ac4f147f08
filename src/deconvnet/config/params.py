"""Profiles: composed from conf/ into params.yaml, validated, read.

conf/voc2012.yaml holds the paper's settings. Every other profile names the one it `inherits` and lists its overrides.
params.yaml is the composed form of one profile, without comments; DVC and the notebooks read only that.

    python -m deconvnet.config.params icons > params.yaml
"""

import sys
from pathlib import Path

import yaml
from pydantic import ValidationError

from deconvnet.config.errors import UserError
from deconvnet.config.paths import PARAMS, ROOT
from deconvnet.config.schema import Params


def read_yaml(path: Path) -> dict:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except Exception as error:  # PyYAML raises a dozen kinds: an impossible date is a ValueError, deep nesting another
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path} must hold one mapping of sections, not {type(settings).__name__}.")
    return settings


def validate(settings: dict, source: str) -> Params:
    """Raises UserError naming every key that is unknown, missing or of the wrong kind."""
    try:
        return Params.model_validate(settings)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'together'}: {e['msg'].lower()}" for e in error.errors()]
        raise UserError(
            f"{source} has {len(problems)} wrong setting(s): {'; '.join(problems)}. "
            "The sections and their types are in src/deconvnet/config/schema.py, the values and reasons in conf/."
        ) from None


def load(path: Path = PARAMS) -> Params:
    return validate(read_yaml(path), path.name)


def merge(base: dict, overrides: dict) -> dict:
    merged = dict(base)
    for key, value in overrides.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both else value
    return merged


def compose(profile: str, conf: Path = ROOT / "conf") -> dict:
    """The complete settings of a profile: those it inherits, with its own overrides on top."""
    path = conf / f"{profile}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in conf.glob("*.yaml")))
        raise UserError(f"There is no profile '{profile}'. Known: {known} (files of {conf.name}/).")
    settings = read_yaml(path)
    if inherits := settings.pop("inherits", None):
        settings = merge(compose(inherits, conf), settings)
    return settings | {"profile": profile}


def dump(settings: dict) -> str:
    validate(settings, "The composed profile")
    header = "# Generated from conf/, where the reasons are: python -m deconvnet.config.params icons > params.yaml\n"
    return header + yaml.safe_dump(settings, sort_keys=False, default_flow_style=None)


if __name__ == "__main__":
    try:
        sys.stdout.write(dump(compose(*sys.argv[1:2])))
    except UserError as error:
        sys.exit(str(error))

"""The id of an experiment: which settings and data it depends on."""

from copy import deepcopy

import pytest
import yaml

from deconvnet.config import params
from deconvnet.config.paths import ROOT
from deconvnet.config.schema import SOLVERS, Params
from deconvnet.evaluation import experiment

CHANGES = [  # one setting of each section, and the seeds of the data
    ("data", "dev", 7), ("data", "seed", 7), ("icons", "train", 7), ("icons", "seed", 7),
    ("boundaries", "zoom", [1, 2]), ("proposals", "max_boxes", 7), ("network", "fc", 7), ("backbone", "context", 1.7),
    ("stage1", "iterations", 7), ("stage2", "min_iou", 0.7), ("fcn", "dropout", 0.7),
    ("weights", "fcn8s", {"source": "caffe", "path": "a"}), ("inference", "min_side", 7),
    ("ensemble", "rule", "product"), ("crf", "iterations", 7), ("evaluation", "small", 0.2),
]  # fmt: skip


def id_of(*changes: tuple[str, str, object], root=ROOT / "no run", **top) -> str:
    """The id of the default's settings with some (section, key, value) changed."""
    settings = deepcopy(params.compose("icons")) | top
    for section, key, value in changes:
        assert settings[section][key] != value
        settings[section][key] = value
    return experiment.experiment_id(params.validate(settings, "test"), root)


def lock(root, data: str | None, objects: str = "1", code: str = "1") -> None:
    """A dvc.lock with these hashes of data/voc, data/objects.csv and the code of the stage."""
    outs = [{"path": "data/objects.csv", "md5": objects}, *([{"path": "data/voc", "md5": data}] if data else [])]
    stage = {"deps": [{"path": "src/deconvnet/data", "md5": code}], "outs": outs}
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"data": stage}}))


def test_training_seeds_profile_and_report_are_not_in_it():
    seeds = [(section, "seed", 77) for section in SOLVERS]
    assert id_of(*seeds, ("report", "seed", 77), ("report", "resamples", 7777), profile="other") == id_of()


@pytest.mark.parametrize(("section", "key", "value"), CHANGES)
def test_every_other_setting_is_in_it(section, key, value):
    assert id_of((section, key, value)) != id_of()


def test_an_optional_setting_counts_if_it_departs_from_its_default():
    """So that a new one leaves the ids of earlier results as they are."""
    changed = [params.merge(params.compose("icons"), {"stage1": {"blocks_lr_factor": f}}) for f in (1, 0.5)]
    same, other = (experiment.experiment_id(params.validate(s, "test"), ROOT / "no run") for s in changed)
    assert same == id_of() != other


def test_a_setting_of_each_section_was_tried():
    assert {section for section, _, _ in CHANGES} == Params.model_fields.keys() - {"profile", "report"}


def test_the_data_are_in_it_and_code_is_not(tmp_path):
    """Also if the settings are the same: another generator of scenes, or other files in a folder."""
    lock(tmp_path, "a.dir")
    first = id_of(root=tmp_path)
    lock(tmp_path, "a.dir", objects="2", code="2")
    assert id_of(root=tmp_path) == first
    lock(tmp_path, "b.dir")
    assert id_of(root=tmp_path) != first
    lock(tmp_path, None)
    assert id_of(root=tmp_path) == id_of() != first


def test_dvc_makes_the_id_again_when_one_of_its_settings_changes():
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["experiment"]
    assert set(stage["params"]) == Params.model_fields.keys() - experiment.NO_SETTINGS_OF_RESULTS
    assert "data/voc" in stage["deps"]

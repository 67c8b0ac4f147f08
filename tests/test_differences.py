"""The Differences table names every setting that can differ, with the values of conf/."""

import yaml

from deconvnet.config import params
from deconvnet.config.paths import ROOT
from deconvnet.config.schema import SOLVERS
from deconvnet.report import differences

ROWS = yaml.safe_load(differences.ROWS.read_text(encoding="utf-8"))
SECTIONS = (*SOLVERS, "data", "proposals", "network", "weights", "inference", "ensemble", "crf")
WITHOUT_DIFFERENCE = {  # and the seeds
    "inference.batch_size": "speed alone",
    "proposals.forest_sha256": "checks a download",
    "stage1.min_iou": "of stage 2 alone",
    "stage1.background_fraction": "of stage 2 alone",
    "stage1.negatives_among": "of stage 2 alone",
}


def keys() -> list[str]:
    return [key for row in ROWS if not isinstance(row["ours"], str) for key in row["ours"]]


def test_the_committed_page_is_what_conf_says():
    assert differences.PAGE.read_text() == differences.page()


def test_every_setting_is_in_the_table():
    """All settings of training, inference and CRF: also those in which the two profiles agree."""
    settings = params.compose("voc2012")
    names = {f"{section}.{key}" for section in SECTIONS for key in settings[section] if key != "seed"}
    covered = {".".join(key.split(".")[:2]) for key in keys()}  # weights.fcn8s.source is of weights.fcn8s
    assert sorted(names - covered) == sorted(WITHOUT_DIFFERENCE)


def test_every_setting_named_exists_and_no_two_rows_share_one():
    settings = params.compose("voc2012")
    assert len(keys()) == len(set(keys()))
    for key in keys():
        differences.value(settings, key)


def test_rows_point_to_notebooks_and_keep_the_table_intact():
    for row in ROWS:
        assert (ROOT / "notebooks" / f"{row['notebook']}.ipynb").is_file()
        assert "|" not in "".join(map(str, row.values()))
    width = {line.count("|") for line in differences.page().splitlines() if line.startswith("|")}
    assert width == {8}


def test_equal_values_of_one_setting_are_shown_once():
    row = {"ours": ["stage1.lr", "stage2.lr", "stage2.min_iou"]}
    settings = {"stage1": {"lr": 0.1}, "stage2": {"lr": 0.1, "min_iou": 0.5}}
    assert differences.cell(row, settings) == "stage1/stage2.lr 0.1<br>stage2.min_iou 0.5"
    settings["stage1"]["lr"] = 0.2
    assert differences.cell(row, settings) == "stage1.lr 0.2<br>stage2.lr 0.1<br>stage2.min_iou 0.5"

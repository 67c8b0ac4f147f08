"""The Differences table says all that differs, and says it as conf/ does."""

from functools import reduce

from deconvnet.config import params
from deconvnet.config.paths import ROOT
from deconvnet.report import differences

ELSEWHERE = {
    "icons",
    "evaluation",
    "report",
    "profile",
}  # the scenes themselves and the reporting: nothing the paper has


def flat(settings: dict) -> dict:
    return {f"{section}.{key}": value for section, values in settings.items() if isinstance(values, dict)
            for key, value in values.items()}  # fmt: skip


def named() -> set[str]:
    return {key for row in differences.ROWS if not isinstance(row.ours, str) for key in row.ours}


def test_the_committed_page_is_what_conf_says():
    assert differences.PAGE.read_text() == differences.page()


def test_every_departure_of_the_default_has_a_row():
    paper, default = flat(params.compose("voc2012")), flat(params.compose("icons"))
    departs = {key for key in paper if default[key] != paper[key] and key.split(".")[0] not in ELSEWHERE}
    assert departs - named() == set()


def test_every_setting_named_exists_and_no_two_rows_share_one():
    settings = params.compose("voc2012")
    keys = [key for row in differences.ROWS if not isinstance(row.ours, str) for key in row.ours]
    assert len(keys) == len(set(keys))
    for key in keys:
        reduce(dict.__getitem__, key.split("."), settings)


def test_rows_point_to_notebooks_and_keep_the_table_whole():
    for row in differences.ROWS:
        assert (ROOT / "notebooks" / f"{row.notebook}.ipynb").is_file()
        assert "|" not in "".join(map(str, row))
    width = {line.count("|") for line in differences.page().splitlines() if line.startswith("|")}
    assert width == {8}


def test_equal_values_of_one_setting_are_said_once():
    row = differences.Row("x", "", "", ("stage1.lr", "stage2.lr", "stage2.min_iou"), "", "train")
    settings = {"stage1": {"lr": 0.1}, "stage2": {"lr": 0.1, "iou": 0.5}}
    assert differences.cell(row, settings) == "stage1/stage2.lr 0.1<br>stage2.min_iou 0.5"
    settings["stage1"]["lr"] = 0.2
    assert differences.cell(row, settings) == "stage1.lr 0.2<br>stage2.lr 0.1<br>stage2.min_iou 0.5"

"""Table 1: the published rows with their sources, beside this run's; and what DVC draws of the confusion."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from deconvnet.config import params
from deconvnet.config.paths import ROOT
from deconvnet.data.classes import VOC_NAMES
from deconvnet.evaluation.methods import METHODS, published
from deconvnet.report import captions, site, tables


def test_every_published_number_has_a_source_or_is_called_unverified():
    """Class rows are there only where the row says which article has them."""
    rows = published()
    assert list(rows.columns) == ["source", *VOC_NAMES, "mean"]
    classes = rows[list(VOC_NAMES)].notna().any(axis=1)
    for method, row in rows.iterrows():
        sources = [part.strip() for part in row["source"].split("; ")]
        assert sources == ["unverified"] or all("arXiv:" in part for part in sources), method
        assert classes[method] == sources[0].startswith("classes: "), method
        assert sources == ["unverified"] or any(part.startswith("mean: ") for part in sources), method
        assert 0 < row["mean"] < 100


def test_rows_with_classes_fit_their_mean():
    """A mean of 21 classes rounded to a digit, without one of them: the missing background is between 90 and 95 %."""
    rows = published()[[*VOC_NAMES, "mean"]].dropna(subset=list(VOC_NAMES[1:]))
    assert sorted(rows.index) == ["EDeconvNet+CRF", "FCN-8s"]
    background = 21 * rows["mean"] - rows[list(VOC_NAMES[1:])].sum(axis=1)
    assert background.between(90, 95).all()


def table(sources: dict[str, str]) -> pd.DataFrame:
    published = pd.DataFrame({"source": sources, "cat": 50.0, "dog": float("nan"), "mean": 40.0})
    ours = pd.DataFrame({"source": "this run", "cat": [20.0], "dog": [30.0], "mean": [25.0]}, index=["FCN-8s"])
    published.loc[~published["source"].str.contains("classes"), "cat"] = float("nan")
    whole = pd.concat([published, ours]).rename_axis("method")
    whole.insert(0, "data", "d")
    return whole


def test_the_page_shows_classes_with_a_source_and_every_mean_with_its_own(tmp_path):
    sources = {"FCN-8s": "classes: arXiv:1; mean: arXiv:2", "CFM": "mean: arXiv:3", "Old": "unverified"}
    results = pd.DataFrame({"mean": [25.0]}, index=pd.Index(["FCN-8s"], name="method"))
    tables.write(table(sources), results, "c", tmp_path)
    _, (_, classes), (_, means) = site.markdown_tables(tmp_path / "table1.md")
    assert list(classes.columns) == ["FCN-8s (published)", "FCN-8s (this run)"]
    assert classes.loc["cat"].tolist() == ["**50.0**", "**20.0**"]
    assert classes.loc["dog"].tolist() == ["–", "**30.0**"]
    assert means["source"].to_dict() == {"FCN-8s": sources["FCN-8s"], "CFM": sources["CFM"], "Old†": "unverified"}
    assert set(means["mean"]) == {"**40.0**"}


def test_a_partly_sourced_row_is_not_marked_and_an_unverified_one_is():
    shown, best = tables.marked(table({"CFM": "mean: arXiv:3", "Old": "unverified"}))
    assert list(shown.index) == ["CFM", "Old†", "FCN-8s"]
    assert best["mean"].tolist() == [True, True, True]
    assert best["dog"].tolist() == [False, False, True]


@pytest.mark.parametrize("method", METHODS.values())
def test_the_five_methods_have_a_sourced_mean(method):
    assert "mean: " in published().loc[method, "source"]


# The five methods over trainings


def training(mean_iou: float, small: float | None, large: float) -> dict:
    """A metrics.json in which all methods are alike; DeconvNet has a point more."""
    values = {"mean_iou": mean_iou, "recall_small": small, "recall_medium": 0.25, "recall_large": large}
    return {method: values | {"mean_iou": mean_iou + 0.01 * (method == "deconvnet")} for method in METHODS}


def test_mean_and_standard_deviation_over_trainings_by_hand():
    found = tables.comparison([training(0.30, 0.02, 0.5), training(0.34, 0.04, 0.5), training(0.35, None, 0.8)])
    assert found.index.tolist() == list(METHODS.values())
    expected = {"paper": "62.2", "mean IoU": "33.0 ± 2.6", "this training": "30.0"}  # √((9 + 1 + 4) / 2)
    expected |= {"recall small": "–", "recall medium": "25.0 ± 0.0"}
    expected |= {"recall large": "60.0 ± 17.3"}  # √((100 + 100 + 400) / 2)
    assert found.loc["FCN-8s"].to_dict() == expected
    assert found.loc["DeconvNet"].tolist()[:3] == ["69.6", "34.0 ± 2.6", "31.0"]
    assert "mean ± standard deviation over trainings" in tables.about(found)


def test_one_training_has_no_deviation():
    found = tables.comparison([training(0.30, None, 0.5)])
    assert "this training" not in found
    assert found.loc["FCN-8s", ["paper", "mean IoU", "recall small", "recall large"]].tolist() == [
        "62.2", "30.0", "–", "50.0"
    ]  # fmt: skip
    assert "±" not in tables.about(found)


@pytest.mark.parametrize(("trainings", "seeds"), [(1, "seeds 205, 201, 202, 203, 204"), (4, "4 trainings with")])
def test_a_caption_names_the_seeds_or_how_many_trainings_there_are(trainings, seeds):
    settings = params.validate(params.compose("icons"), "icons")
    text = captions.short_caption(settings, "val", 300, "0123abcd", trainings)
    assert text.startswith(f"icons: icons val, 300 images; {seeds}")
    assert text.endswith("; experiment 0123abcd")
    assert (" seeds 205" in text) == (trainings == 1)


# Confusion


def test_the_confusion_has_a_diagonal_whatever_is_predicted(tmp_path):
    """The k-th row is the k-th column, also of a class that is never predicted; each field keeps its place in DVC's."""
    counted = {"objects/label": np.array([1, 1, 14]), "objects/majority/deconvnet": np.array([1, 0, 2])}
    tables.write_confusion(counted, {"deconvnet": "DeconvNet"}, tmp_path)
    assert (tmp_path / "deconvnet.csv").read_text() == (
        "actual,predicted\naeroplane,aeroplane\naeroplane,background\nmotorbike,bicycle\n"
    )
    spec = json.loads((tmp_path / "template.json").read_text())["spec"]
    axes = spec["encoding"]
    columns, rows = (axes[axis]["scale"]["domain"] for axis in ("x", "y"))
    assert rows == list(VOC_NAMES[1:]) == columns[:20]
    assert columns[20:] == ["background"]
    assert (axes["x"]["field"], axes["y"]["field"]) == ("<DVC_METRIC_X>", "<DVC_METRIC_Y>")
    imputed = {t["key"]: t.get("keyvals") for t in spec["transform"] if "impute" in t}
    assert imputed == {"<DVC_METRIC_X>": list(VOC_NAMES), "<DVC_METRIC_Y>": None}


def test_every_confusion_plot_is_drawn_so():
    named = [plot for part in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"] if isinstance(part, dict)
             for plot in part.values() if "reports/confusion" in str(plot["y"])]  # fmt: skip
    assert {plot["template"] for plot in named} == {"reports/confusion/template.json"}
    assert {(plot["x"], *plot["y"].values()) for plot in named} == {("predicted", "actual")}

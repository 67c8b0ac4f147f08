"""What is committed belongs together: code, lock file, metrics, tables, README; and the tolerance of CI."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import ruamel.yaml

from deconvnet.config.paths import REPORTS, ROOT, TABLES
from deconvnet.evaluation import tolerance
from deconvnet.evaluation.methods import METHODS
from deconvnet.pipeline import verify
from deconvnet.report import tables

YAML = ruamel.yaml.YAML(typ="safe")  # as DVC writes it: 1e-05 is a number
LOCK = YAML.load(ROOT / "dvc.lock")["stages"]


def test_code_parameters_and_reports_belong_together():
    """Byte for byte, what the committed run used and made."""
    assert verify.stale_artifacts() == [], "run make repro and commit its reports"


def test_table_and_metrics_tell_the_same_means():
    metrics = json.loads((REPORTS / "metrics.json").read_text())
    per_class = json.loads((REPORTS / "per_class.json").read_text())
    table = pd.read_csv(TABLES / "table1.csv").query("source == 'this run'").set_index("method")
    for method, title in METHODS.items():
        assert table.loc[title, "mean"] == pytest.approx(100 * metrics[method]["mean_iou"], abs=0.051)
        classes = [value for name, value in per_class[method].items() if name != "mean"]
        assert sum(classes) / 21 == pytest.approx(metrics[method]["mean_iou"], abs=1e-4)


def test_readme_shows_the_committed_results():
    readme = (ROOT / "README.md").read_text()
    assert tables.for_readme(TABLES, readme) == readme


def test_the_page_about_dvc_is_of_this_run():
    pages = (ROOT / "docs" / "dvc.md", TABLES / "table1.md")
    one, other = (re.search(r"content id\s+([0-9a-f]{12})", page.read_text())[1] for page in pages)
    assert one == other, "run docs/make_dvc_page.py and commit docs"


def test_the_page_about_dvc_is_made_from_its_template():
    """What a person wrote stands in the template; what a command prints is between."""
    page = (ROOT / "docs" / "dvc.md").read_text()
    for written in re.split(r"{{.*?}}", (ROOT / "docs" / "dvc.md.j2").read_text().strip()):
        assert written in page, "run docs/make_dvc_page.py and commit docs"
    for picture in re.findall(r"\]\((images/[^)]+)\)", page):
        assert (ROOT / "docs" / picture).is_file(), picture


def test_both_networks_trained_with_the_same_compute():
    flops = {
        k: json.loads((REPORTS / "compute" / f"{k}.json").read_text())["flops"] for k in ("stage1", "stage2", "fcn8s")
    }
    assert flops["fcn8s"] == pytest.approx(flops["stage1"] + flops["stage2"], rel=0.02)


def metrics_of(*means: float) -> dict:
    return {method: {"mean_iou": mean} for method, mean in zip(METHODS, means, strict=True)}


def test_tolerance_is_the_interval_of_prediction_for_one_more_run():
    """By hand: variances 0.01 and four times 0, so 0.002 each; 99.8 % of t (10 degrees of freedom) lie within 4.144."""
    runs = [metrics_of(first, 0.2, 0.3, 0.4, 0.5) for first in (0.1, 0.2, 0.3)]
    spread = tolerance.spread(runs)
    assert spread["fcn8s"]["mean_iou"]["values"] == [0.1, 0.2, 0.3]
    for found in spread.values():
        assert found["mean_iou"]["tolerance"] == pytest.approx(4.144 * 0.002**0.5 * (4 / 3) ** 0.5, rel=1e-3)


@pytest.mark.parametrize(("independent", "most", "least"), [(5, 5, 500), (1, 20, 495)])
def test_few_runs_of_unchanged_code_are_out_of_tolerance(independent, most, least):
    """500 runs that differ as four seeds do, methods apart or all as one; then one of the methods is worse by 0.1."""
    rng, alarms = np.random.default_rng(0), {0.0: 0, 0.1: 0}
    for _ in range(500):
        draws = np.repeat(rng.normal(0.4, 0.01, (5, independent)), 5 // independent, axis=1)
        *known, new = (metrics_of(*draw) for draw in draws)
        for worse in alarms:
            other = new | {"deconvnet": {"mean_iou": new["deconvnet"]["mean_iou"] - worse}}
            lines = tolerance.compare(tolerance.spread(known), other)
            alarms[worse] += any(line.startswith("FAILED") for line in lines)
    assert 0 < alarms[0.0] <= most
    assert alarms[0.1] >= least


@pytest.mark.parametrize(("value", "failed"), [(0.42, False), (0.44, True), (0.36, True), (float("nan"), True)])
def test_a_mean_out_of_tolerance_fails(value, failed):
    known = {method: {"mean_iou": {"values": [0.3, 0.5], "tolerance": 0.03}} for method in METHODS}
    lines = tolerance.compare(known, metrics_of(0.4, 0.4, value, 0.4, 0.4))
    assert [line.startswith("FAILED") for line in lines] == [False, False, failed, False, False]


def test_committed_tolerances_come_from_four_seeds():
    committed = json.loads((REPORTS / "metrics.json").read_text())
    others = json.loads((REPORTS / "seeds.json").read_text())["metrics"].values()
    stated = json.loads((REPORTS / "tolerance.json").read_text())
    assert stated.keys() == committed.keys()
    for method, metrics in committed.items():
        assert stated[method].keys() == metrics.keys()
        for metric, value in metrics.items():
            found = stated[method][metric]
            assert found["values"] == [value, *(other[method][metric] for other in others)]
            assert len(set(found["values"])) == 4
            assert 0 < found["tolerance"] < 0.25

"""What is committed belongs together: metrics, tables, README, tolerances (make check-reports, with verify --quick)."""

import json
import re

import pandas as pd
import pytest
from test_release import MAX_BYTES

from deconvnet.config import params
from deconvnet.config.paths import REPORTS, ROOT, TABLES
from deconvnet.evaluation import experiment
from deconvnet.evaluation.methods import METHODS
from deconvnet.pipeline import release
from deconvnet.predict import trained, weights_file
from deconvnet.report import tables

pytestmark = pytest.mark.reports


def load(name: str) -> dict:
    return json.loads((REPORTS / f"{name}.json").read_text())


def test_table_and_metrics_have_the_same_means():
    metrics, per_class = load("metrics"), load("per_class")
    table = pd.read_csv(TABLES / "table1.csv").query("source == 'this run'").set_index("method")
    for method, title in METHODS.items():
        assert table.loc[title, "mean"] == pytest.approx(100 * metrics[method]["mean_iou"], abs=0.051)
        classes = [value for name, value in per_class[method].items() if name != "mean"]
        assert sum(classes) / 21 == pytest.approx(metrics[method]["mean_iou"], abs=1e-4)


def test_readme_shows_the_committed_results():
    readme = (ROOT / "README.md").read_text()
    assert tables.for_readme(TABLES, readme) == readme, "python -m deconvnet.report.tables"


def test_the_page_about_dvc_is_of_this_run_and_its_template():
    page = (ROOT / "docs" / "dvc.md").read_text()
    assert f"experiment {load('experiment')['id']}" in " ".join(page.split()), "run docs/make_dvc_page.py"
    for written in re.split(r"{{.*?}}", (ROOT / "docs" / "dvc.md.j2").read_text().strip()):
        assert written in page, "run docs/make_dvc_page.py"
    for picture in re.findall(r"\]\((images/[^)]+)\)", page):
        assert (ROOT / "docs" / picture).is_file(), picture


def test_readme_and_findings_say_of_the_claims_what_the_counts_show():
    rows = {row["id"]: row for row in load("claims")}

    def control(claim: str, begins: str) -> dict:
        (found,) = [c for c in rows[claim]["controls"] if c["measure"].startswith(begins)]
        return found

    def undecided(row: dict) -> bool:
        return row["ci"][0] <= 0 <= row["ci"][1]

    verdicts = {"C1": "contradicted", "C2": "supported", "C3a": "supported", "C3b": "supported", "C4a": "supported",
                "C4b": "supported", "C5a": "inconclusive", "C5b": "inconclusive"}  # fmt: skip
    assert {name: rows[name]["verdict"] for name in verdicts} == verdicts
    pair = control("C2", "two FCN-8s")
    assert pair["ci"][0] > 0
    assert pair["effect"] >= rows["C2"]["effect"] - 1
    assert undecided(control("C2", "EDeconvNet − two FCN-8s"))
    assert undecided(control("C3a", "DeconvNet, with the paper's own kernel"))
    assert undecided(control("C3b", "EDeconvNet, with the paper's own kernel"))
    assert control("C3a", "small objects")["ci"][1] < 0 < control("C3a", "precision")["ci"][0]
    assert undecided(control("C4b", "from 50 to 100"))
    assert control("C5a", "small objects")["effect"] < 20
    for name in ("C6", "C7"):
        low, high = rows[name]["range"]
        assert low > 5 * (high - low)
    for name in ("C8a", "C8b"):
        assert rows[name]["verdict"] == "not run"
        assert control(name, "check: is it higher than without batch norm")["range"][1] < 0
    assert [rows[name]["verdict"] for name in ("C8c", "C8d")] == ["not run", "inconclusive"]
    assert control("C8c", "mean IoU, unpooling")["range"][0] > 0


def test_reports_are_of_these_settings():
    committed = load("experiment")
    settings = params.load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "data_hash", lambda root: committed["data"])
        assert experiment.experiment_id(settings) == committed["id"]
    assert load("seeds")["experiment"] == load("ablations")["experiment"] == committed["id"]


def test_the_weights_that_come_with_the_project_are_of_this_run():
    """Card, numbers and page; make evaluate says whether they reach those numbers."""
    card, _ = weights_file.read(trained.SHIPPED)
    assert card["experiment"] == load("experiment")["id"], "make release"
    assert card["mean_iou"] == {method: metrics["mean_iou"] for method, metrics in load("metrics").items()}
    assert params.validate(card["settings"], "card") == params.load()
    content = trained.SHIPPED.read_bytes()
    assert len(content) < MAX_BYTES
    assert (ROOT / "weights" / "README.md").read_text() == release.describe(trained.SHIPPED.name, content, card)


def test_learned_boundaries_find_about_as_many_objects_as_gradients():
    """conf/icons.yaml and docs/differences.yaml say so of the best 50 boxes."""
    learned, gradient = (load("proposals")[edges]["50"]["all"] for edges in ("learned boundaries", "gradient edges"))
    assert learned == pytest.approx(gradient, abs=0.03)


def test_both_networks_were_trained_with_the_same_compute():
    flops = {name: load(f"compute/{name}")["flops"] for name in ("stage1", "stage2", "fcn8s")}
    assert flops["fcn8s"] == pytest.approx(flops["stage1"] + flops["stage2"], rel=0.02)


def test_committed_tolerances_are_of_the_default_and_its_repetitions():
    committed, repetitions, stated = load("metrics"), load("seeds")["metrics"].values(), load("tolerance")
    assert stated.keys() == committed.keys()
    for method, metrics in committed.items():
        for metric, value in metrics.items():
            found = stated[method][metric]
            assert found["values"] == [value, *(other[method][metric] for other in repetitions)]
            assert len(set(found["values"])) == 1 + len(repetitions)
            assert 0 < found["tolerance"] < 0.25


def test_the_default_is_the_training_nearest_to_their_mean():
    """As conf/icons.yaml says; the default's value is the first of each metric."""
    values = [found["values"] for metrics in load("tolerance").values() for found in metrics.values()]
    distances = [sum(abs(v[k] - sum(v) / len(v)) for v in values) for k in range(len(values[0]))]
    assert distances[0] == min(distances)
    assert distances.count(min(distances)) == 1


def test_tolerances_of_the_quick_profile_can_fail():
    """DeconvNet alone learns too little in a quarter of the iterations: its mean IoU is below its tolerance."""
    quick = load("quick")
    assert quick.keys() == METHODS.keys()
    for method in ("fcn8s", "edeconvnet", "edeconvnet_crf"):
        assert 0 < quick[method]["mean_iou"]["tolerance"] < quick[method]["mean_iou"]["values"][0], method


def test_readme_and_findings_say_of_the_studies_what_they_found():
    """By the numbers of reports/studies.json."""
    budgets = load("studies")["budgets"]

    def mean(method: str, budget: str = "1") -> float:
        return budgets[budget][method]["mean_iou"]["value"]

    gains = {method: mean(method, "2") - mean(method) for method in ("deconvnet", "fcn8s")}
    assert gains["deconvnet"] > gains["fcn8s"] > 0
    assert all(mean("deconvnet", budget) < mean("fcn8s", budget) for budget in ("1", "2"))
    assert mean("fcn8s") > mean("deconvnet_whole")  # FCN-8s's decoder is above on whole images …
    assert mean("fcn8s_proposals") > mean("deconvnet")  # … and on proposals
    assert mean("deconvnet") > 2 * mean("deconvnet_whole")
    assert mean("fcn8s_proposals") < mean("fcn8s")
    several = {(m, b): len(row["seeds"]) for b, methods in budgets.items() for m, row in methods.items()}
    assert {several.pop(("deconvnet", "1")), several.pop(("fcn8s", "1"))} == {3, 2}
    assert {number for (method, _), number in several.items() if not method.endswith(("_crf", "edeconvnet"))} == {1}
    assert [load("studies")["converged"][method]["1"] for method in ("deconvnet", "fcn8s")] == [False, False]
    assert budgets["2"]["deconvnet"]["mean_iou"]["ci"][1] < budgets["2"]["fcn8s"]["mean_iou"]["ci"][0]

"""A val without ground truth, as VOC's test list: every stage ends, and nothing shows a number that nobody measured."""

import json
import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import call

from deconvnet.claims import judge, tolerance
from deconvnet.claims.statements import Claim
from deconvnet.data import voc
from deconvnet.evaluation import errors, measures
from deconvnet.evaluation.methods import METHODS
from deconvnet.report import figures, plots, site, tables

NAN = float("nan")
NOTHING = NAN, (NAN, NAN)
# The cells of notebooks in one process, which takes a quarter of the time of one for each, and the report after them.
RUN = """
import json, sys
for name in sys.argv[1:]:
    cells = json.load(open(f"notebooks/{name}.ipynb", encoding="utf-8"))["cells"]
    exec("\\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code"), {"__name__": "__main__"})
from deconvnet.report import site
site.build()
"""
NOTEBOOKS = (  # those that measure on val
    "ensemble", "evaluate", "diagnosis", "results", "proposal_study", "decoder", "claims", "figures"
)  # fmt: skip
NOT_A_NUMBER = re.compile(r"\b(nan|NaN|inf|None)\b")


@pytest.fixture(scope="module", params=["void", "background"])
def run(smoke, tmp_path_factory, request) -> tuple[Path, str, str]:
    """A run whose val has no object in any mask, what its notebooks print, and what the masks hold."""
    folder = tmp_path_factory.mktemp("nothing") / "run"
    shutil.copytree(smoke, folder, ignore=shutil.ignore_patterns(".dvc", "site", "pixels"))
    for name in voc.read_list(folder / "data" / "voc", "val"):
        for path in (voc.labels_path, voc.instances_path):
            labels = voc.read_labels(folder / "data" / "voc", name)
            value = voc.VOID if request.param == "void" else 0
            voc.save_mask(path(folder / "data" / "voc", name), np.full_like(labels, value))
    table = folder / "data" / "objects.csv"
    rows = pd.concat([voc.read_objects(table, split) for split in ("train", "dev")])
    rows.to_csv(table, index=False)
    done = call(folder, "python", "-c", RUN, *NOTEBOOKS, MPLBACKEND="Agg", OMP_WAIT_POLICY="PASSIVE")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout, request.param


def refuse(constant: str):
    raise AssertionError(f"{constant} is no JSON")


def test_nothing_reads_as_a_number_that_was_not_measured(run):
    folder, printed, _ = run
    reports = folder / "reports"
    for path in reports.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=refuse)
    pages = [reports / "README.md", reports / "site" / "index.html", *reports.glob("tables/*.*")]
    for text in (printed, *(path.read_text() for path in pages)):
        assert not NOT_A_NUMBER.search(text), NOT_A_NUMBER.search(text)
    assert {path.stem for path in (reports / "figures").glob("*.png")} >= {"claims", "figure1", "figure7", "layers"}


def test_what_was_measured_is_what_the_masks_allow(run):
    """All void: nothing. Background alone: mean IoU, over the classes that are predicted; of objects nothing."""
    folder, printed, kind = run
    reports = folder / "reports"
    expected = set() if kind == "void" else {"mean_iou"}
    for values in json.loads((reports / "metrics.json").read_text()).values():
        assert {key for key, value in values.items() if value is not None} == expected
    rows = {row["id"]: row for row in json.loads((reports / "claims.json").read_text())}
    measured = {key for key, row in rows.items() if row["verdict"] != "not run"}
    assert measured == (set() if kind == "void" else {"C1", "C2", "C3a", "C3b", "C4a", "C4b"})
    for key in {*rows} - measured - {"C6", "C7", "C8c"}:  # these lack their ablation
        assert rows[key]["measure"].endswith("; val has nothing to measure it on")
    table = (reports / "tables" / "table1.md").read_text().split("## Table 1")[0]
    ours = [line.split("|")[3:7] for line in table.split("\n") if line.startswith("| ") and "method" not in line]
    assert len(ours) == 5
    for mean, *recalls in ours:
        assert (mean.strip() == "–") == (kind == "void")
        assert {recall.strip() for recall in recalls} == {"–"}
    assert ("since it has no ground truth" in printed) == (kind == "void")
    assert "val has no object to measure it on." in printed


def test_tables_show_a_dash():
    assert [tables.number(value) for value in (1.25, 0.0, NAN, np.inf)] == ["1.2", "0.0", "–", "–"]
    assert tables.with_interval(*NOTHING) == "–"
    assert tables.with_interval(1.0, (0.5, 2.0)) == "1.0 [0.5, 2.0]"
    shares = {f"DeconvNet, {rule} of the proposals' scores": NAN for rule in ("maximum", "mean")}
    assert tables.collapse(shares | {"ground truth": NAN}) == ""
    metrics = {"mean_iou": NAN, "recall_small": None, "recall_medium": 0.03, "recall_large": NAN}
    table = tables.comparison([dict.fromkeys(METHODS, metrics)])
    assert table.loc["FCN-8s"].tolist() == ["62.2", "–", "–", "3.0", "–"]


UNKNOWN = {"value": NAN, "ci": [NAN, NAN], "per_seed": [NAN, NAN]}
NO_ERRORS = dict.fromkeys((*errors.KINDS, *errors.POOLED, "object_iou"), UNKNOWN)
NO_PARTS = {"boxes": {"title": "boxes", "given": True, "gain": UNKNOWN}}
COVERED = {"1": {"all": None, "medium": None}, "10": {"all": None, "medium": None}}  # no object of the other sizes
EMPTY = {
    "counts": lambda: plots.mean_iou_by_count({"best": {"1": NOTHING, "10": NOTHING}}, COVERED),
    "sizes": lambda: plots.sizes({what: {"FCN-8s": {"< 0.2, n = 0": NOTHING}} for what in ("recall", "IoU")}),
    "layers": lambda: plots.layers({line: {"deconv1": NOTHING} for line in ("unpooling", "bilinear")}),
    "errors": lambda: plots.errors({"fcn8s": NO_ERRORS}, METHODS),
    "diagnosis": lambda: plots.diagnosis(NO_PARTS),
    "bars": lambda: figures.bars(pd.DataFrame({"FCN-8s": [NAN] * 3}), "IoU, %", "IoU"),
}


@pytest.mark.parametrize("draw", EMPTY.values(), ids=EMPTY)
def test_a_diagram_without_numbers_says_so(draw):
    figure = draw()
    texts = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    plt.close(figure)
    assert texts == [["Val has nothing to measure this on."]] * len(figure.axes)


def test_a_claim_says_why_it_was_not_run():
    nothing = {"counts/a": np.zeros((4, 3, 21), np.uint32)}
    for needs, note in (((), "; val has nothing to measure it on"), (("bilinear",), "")):
        claim = Claim("C", "s", "e", None, "a", "points", measures.iou("a"), needs)
        (row,) = judge.claims_table([claim], [nothing], {}, 4, "d", 9, 0)
        assert (row["verdict"], row["effect"], row["measure"]) == ("not run", None, f"a{note}")
    assert site.verdict([{"id": "C", "verdict": "not run"}]) == "Of 1 tests of its claims here, 1 not run (C)."


def test_a_metric_that_could_not_be_measured_is_out_of_tolerance():
    known = {m: {"mean_iou": {"values": [0.5], "tolerance": 0.1}} for m in tolerance.METHODS}
    lines = tolerance.compare(known, {m: {"mean_iou": None} for m in tolerance.METHODS})
    assert all(line.startswith("FAILED") for line in lines)

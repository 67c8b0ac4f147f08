"""The curves behind C4, C5 and C8, and what the paper leaves open: each point by hand, as tables and as data."""

import numpy as np
import pandas as pd
import pytest

from deconvnet import DeconvNet
from deconvnet.claims import curves
from deconvnet.config.paths import ROOT, TABLES
from deconvnet.evaluation import errors
from deconvnet.report import architecture, site, tables


def counts(*shares: float, background: float = 0) -> np.ndarray:
    """An image of 100 pixels of one class for each share that is correct; some pixels are predicted as background."""
    found = np.zeros((len(shares), 3, 21), np.uint32)
    for i, share in enumerate(shares):
        found[i, :, 1] = round(100 * share), 100, round(100 * share)
        found[i, 2, 0] = round(100 * background)
    return found


RUN = {
    **{f"proposals/best/{n}": counts(n / 10, n / 10) for n in (1, 2, 4)},
    **{f"proposals/largest/{n}": counts(n / 20, n / 20) for n in (1, 2)},
    "proposals/rule/maximum": counts(0.4, 0.4, background=0.4),
    **{f"proposals/rule/{rule}": counts(0.4, 0.4, background=0.9) for rule in ("mean", "sum")},
    "counts/deconvnet": counts(0.4, 0.4), "counts/edeconvnet": counts(0.5, 0.5),
    "counts/edeconvnet_product": counts(0.3, 0.3),
    "counts/fcn8s": counts(0.1, 0.3),
    "objects/image": np.array([0, 0, 1]), "objects/size": np.array([0.1, 0.3, 0.3]),
    **{f"objects/{what}/{m}": np.array([0.2, 0.4, 0.6]) for what in ("recall", "iou") for m in curves.TWO},
    "energy/deconvnet": np.array([[0.2, 0.3, 0.4, 0.5]] * 3), "energy_image/deconvnet": np.array([0, 1, 1]),
    "energy_blind/deconvnet": np.array([[0.2, 0.1, 0.1, 0.6]] * 3),
}  # fmt: skip
OF_ENERGY = {key: value for key, value in RUN.items() if key.startswith("energy")}
ABLATED = {f"bilinear/{key}": value for key, value in OF_ENERGY.items()}
ABLATED["bilinear/counts/deconvnet"] = counts(0.2, 0.2)
ABLATED["bilinear/energy/deconvnet"] = RUN["energy/deconvnet"] / 2
KINDS = {what: {"value": 9.0, "ci": [8.0, 10.0]} for what in (*errors.KINDS, *errors.POOLED, "object_iou")}
PARTS = {
    part: {"title": title, "given": given, "mean_iou": {"value": 30.0 + gain, "ci": [20.0, 40.0]},
           "gain": {"value": gain, "ci": [gain - 1, gain + 1]}, **{kind: {"value": 2.0} for kind in errors.KINDS}}
    for part, title, given, gain in (
        ("paper", "as in the paper", False, 0.0), ("boxes", "own boxes", True, 6.0), ("hits", "hits", True, 8.0),
        ("bias", "a bias", False, -0.5), ("mean", "the mean", False, -2.0),
    )
}  # fmt: skip
CONTROL = {"measure": "b", "unit": "points", "effect": -0.5, "ci": [-1.0, 0.0], "range": None}
CLAIM = {"id": "C1", "primary": True, "statement": "s", "paper": "p", "paper_effect": 7.4, "measure": "m",
         "unit": "points", "effect": 1.0, "ci": [0.5, 2.0], "range": None, "seeds": 4, "against_one": False,
         "verdict": "supported", "note": "", "controls": [CONTROL]}  # fmt: skip
AGAINST_ONE = CLAIM | {"id": "C6", "primary": False, "paper_effect": None, "effect": -1.0, "ci": None,
                       "range": [-1.5, -0.5], "against_one": True, "verdict": "contradicted", "note": "One budget.",
                       "controls": []}  # fmt: skip
NOT_RUN = AGAINST_ONE | {"id": "C7", "effect": None, "range": None, "seeds": 0, "verdict": "not run"}
MEASURED = curves.Measured([RUN], images=2, resamples=200, seed=0)


def values(points: dict) -> list[float]:
    return [round(value, 6) for value, _ in points.values()]


def test_mean_iou_by_the_numbers_of_proposals_that_were_counted():
    lines = curves.mean_iou_by_count(MEASURED, [1, 2, 4])
    assert list(lines) == ["DeconvNet, best first (objectness)", "DeconvNet, largest first (figure 6)", "FCN-8s"]
    best, largest, fcn = lines.values()
    assert (list(best), values(best)) == (["1", "2", "4"], [10, 20, 40])
    assert (list(largest), values(largest)) == (["1", "2"], [5, 10])
    assert best["2"][1] == pytest.approx((20, 20))  # both images are alike, and so is every resample
    assert (list(fcn), values(fcn)) == (["1", "2", "4"], [20, 20, 20])  # it has no proposals
    assert fcn["1"][1] == pytest.approx((10, 30))  # either image alone


@pytest.mark.parametrize("what", ["recall", "iou"])
def test_objects_by_size(what):
    lines = curves.objects_by_size(MEASURED, [0.2, 0.3], what)
    assert list(lines) == ["FCN-8s", "DeconvNet"]
    for points in lines.values():
        assert list(points) == ["< 0.2, n = 1", "0.2–0.3, n = 0", "≥ 0.3, n = 2"]
        assert values(points) == pytest.approx([20, float("nan"), 50], nan_ok=True)
        assert points["≥ 0.3, n = 2"][1] == (pytest.approx(40), pytest.approx(60))  # either object alone


def test_energy_layer_by_layer():
    """The share less that of a map that is the same for every object: it can be 0, and below."""
    lines = curves.energy_by_layer(MEASURED, ABLATED)
    assert list(lines) == ["DeconvNet", "DeconvNet with bilinear upsampling"]
    assert list(lines["DeconvNet"]) == ["unpool2", "deconv2", "unpool1", "deconv1"]
    assert values(lines["DeconvNet"]) == pytest.approx([0, 20, 30, -10])
    assert values(lines["DeconvNet with bilinear upsampling"]) == pytest.approx([-10, 5, 10, -35])
    assert list(curves.energy_by_layer(MEASURED, {})) == ["DeconvNet"]
    he = {f"no_batch_norm_he/{key}": value for key, value in OF_ENERGY.items()}
    title = "DeconvNet without batch norm, He-initialised decoder"
    assert values(curves.energy_by_layer(MEASURED, he)[title]) == values(lines["DeconvNet"])


@pytest.fixture
def page(tmp_path):
    titled = {
        "C4: mean IoU in %": ("proposals", curves.mean_iou_by_count(MEASURED, [1, 2, 4])),
        "C5: recall in %": ("side", curves.objects_by_size(MEASURED, [0.2], "recall")),
        "C8: excess in points": ("layer", curves.energy_by_layer(MEASURED, ABLATED)),
    }
    path = tmp_path / "curves.md"
    path.write_text(tables.curves_page(titled, "a caption"))
    return path


def test_the_page_has_every_point_with_its_interval(page):
    (c4, best), (_, sizes), (_, layers) = site.markdown_tables(page)
    assert c4 == "C4: mean IoU in %, with 95 % intervals."
    assert best.loc["2"].tolist() == ["20.0 [20.0, 20.0]", "10.0 [10.0, 10.0]", "20.0 [10.0, 30.0]"]
    assert best.loc["4"].tolist() == ["40.0 [40.0, 40.0]", "–", "20.0 [10.0, 30.0]"]  # not counted in that order
    assert sizes.loc["≥ 0.2, n = 2", "DeconvNet"] == "50.0 [40.0, 60.0]"
    assert layers.loc["deconv1", "DeconvNet with bilinear upsampling"].startswith("-35.0 [")


def test_the_data_file_has_the_same_points():
    rows = curves.records({"proposals": curves.mean_iou_by_count(MEASURED, [1, 2, 4])})["proposals"]
    assert len(rows) == 3 + 2 + 3
    first, largest, last = rows[0], rows[4], rows[-1]
    assert (first["line"], first["x"]) == ("DeconvNet, best first (objectness)", "1")
    assert [first["value"], *first["ci"]] == pytest.approx([10, 10, 10])
    assert (largest["line"], largest["x"]) == ("DeconvNet, largest first (figure 6)", "2")
    assert largest["value"] == pytest.approx(10)
    assert (last["line"], last["x"]) == ("FCN-8s", "4")
    assert [last["value"], *last["ci"]] == pytest.approx([20, 10, 30])


# What the paper leaves open


def test_both_rules_of_the_ensemble_are_named_whichever_is_the_default():
    product = {"counts/edeconvnet": RUN["counts/edeconvnet_product"]}
    for run, rule in ((RUN, "mean"), (RUN | product, "product")):
        measured = curves.Measured([run], images=2, resamples=20, seed=0)
        rows = {row["method"]: row for row in curves.beyond(measured, ABLATED, rule)}
        assert rows["EDeconvNet, product"]["iou"][0] == pytest.approx(30)
        assert ("EDeconvNet, mean" in rows) == (rule == "mean")
        assert rule == "product" or rows["EDeconvNet, mean"]["iou"][0] == pytest.approx(50)
    assert rows["DeconvNet with bilinear upsampling"]["seeds"] == 1
    assert "DeconvNet in one stage" not in rows  # it was not run
    assert (rows["ground truth"]["iou"], rows["ground truth"]["background"]) == (None, 0)


def test_whether_the_mean_collapses_follows_from_the_numbers():
    shares = {"DeconvNet, maximum of the proposals' scores": 81.94, "DeconvNet, mean of the proposals' scores": 97.51}
    text = tables.collapse(shares | {"ground truth": 76.3})
    assert "With the mean 97.5 % of the pixels are predicted as background, with the maximum 81.9 %" in text
    assert "in the ground truth 76.3 % are." in text
    assert text.endswith("the maximum takes the one with the highest score.")
    other = tables.collapse({title: 90.0 for title in shares} | {"ground truth": 76.3})
    assert other.endswith("So the mean does not collapse to background here.")


def test_the_page_of_what_is_left_open(tmp_path):
    path = tmp_path / "beyond.md"
    path.write_text(tables.beyond_page(curves.beyond(MEASURED, ABLATED, "mean"), {"FCN-8s": 0.051}, "a caption"))
    (text, rules), (_, calibrated) = site.markdown_tables(path)
    assert "With the mean 69.2 % of the pixels are predicted as background, with the maximum 50.0 %" in text
    assert rules.loc["DeconvNet, mean of the proposals' scores"].tolist()[1:] == ["69.2", "1"]
    assert rules.loc["ground truth"].tolist() == ["–", "0.0", "–"]
    assert calibrated.loc["FCN-8s"].item() == "5.1"


# The page of the claims, and that of the diagnosis


def test_the_page_of_the_claims(tmp_path):
    path = tmp_path / "claims.md"
    path.write_text(tables.claims_page([CLAIM, AGAINST_ONE, NOT_RUN], "a caption", 5000))
    text = path.read_text()
    (_, claims), (_, controls) = site.markdown_tables(path)
    assert claims.index.tolist() == ["C1, primary", "C6", "C7"]
    shown = claims[["its evidence", "measured here", "effect [95 %]", "trainings", "verdict"]].to_numpy().tolist()
    assert shown == [
        ["p (+7.4)", "m (points)", "+1.0 [+0.5, +2.0]", "4", "**supported**"],
        ["p", "m (points)", "-1.0 range [-1.5, -0.5]", "4 against 1", "**contradicted**"],
        ["p", "m (points)", "not run", "0", "**not run**"],
    ]
    assert controls.loc["C1"].tolist() == ["b (points)", "-0.5 [-1.0, +0.0]"]
    assert text.endswith("\n\n- C6, C7: One budget.\n")
    assert "(5,000 resamples, paired)" in text
    assert tables.claims_page([CLAIM], "a caption", 5000).endswith(" |\n")  # no notes


def test_a_control_without_an_interval_has_no_sign():
    """A share, which is no difference."""
    assert tables.found_text(CONTROL | {"effect": 11.6, "ci": None}) == "11.6"


def test_the_page_of_the_diagnosis_names_what_gains_most(tmp_path):
    path = tmp_path / "diagnosis.md"
    path.write_text(tables.diagnosis_page(PARTS, "a caption"))
    ((text, table),) = site.markdown_tables(path)
    assert "given by the ground truth, most is gained by *hits*: +8.0 points [+7.0, +9.0]." in text
    assert text.endswith("Of the parts that need no ground truth, none gains anything that can be told apart from 0.")
    assert table.loc["own boxes"].tolist() == ["yes", "36.0 [20.0, 40.0]", "6.0 [5.0, 7.0]", "2.0", "2.0", "2.0"]
    assert table["given by the ground truth"].tolist() == ["no", "yes", "yes", "no", "no"]
    nan = {"value": float("nan"), "ci": [float("nan")] * 2}
    nothing = {part: row | {"gain": nan, "mean_iou": nan} for part, row in PARTS.items()}
    assert "most is gained" not in tables.diagnosis_page(nothing, "a caption")


# Where the pages come from


def test_every_page_says_which_notebook_made_it(page, tmp_path):
    layers = architecture.layers(DeconvNet(blocks=[(4, 1)], fc=8, size=8))
    results = pd.DataFrame({"mean": [1.0]}, index=["FCN-8s"])
    tables.write(pd.read_csv(TABLES / "table1.csv", index_col="method"), results, "c", tmp_path)
    pages = {
        "claims": tables.claims_page([CLAIM, AGAINST_ONE], "c", 10),
        "curves": page.read_text(),
        "beyond": tables.beyond_page(curves.beyond(MEASURED, {}, "mean"), {"FCN-8s": 0.1}, "c"),
        "errors": tables.errors_page({"fcn8s": KINDS, "deconvnet": KINDS}, {}, "c"),
        "diagnosis": tables.diagnosis_page(PARTS, "c"),
        "table1": (tmp_path / "table1.md").read_text(),
        "table2": tables.table2_page(layers),
    }
    for name, notebook in (site.MORE | {"claims": "claims", "table1": "results"}).items():
        link = f"../../notebooks/{notebook}.ipynb"
        assert pages[name].count(f"Made by [notebooks/{notebook}.ipynb]({link}).") == 1, name
        assert (TABLES / link).resolve() == ROOT / "notebooks" / f"{notebook}.ipynb"
        (tmp_path / f"{name}.md").write_text(pages[name])
        assert all("Made by" not in text for text, _ in site.markdown_tables(tmp_path / f"{name}.md")[:1]), name
    readme = tables.for_readme(tmp_path, (ROOT / "README.md").read_text())
    assert "| FCN-8s |" in readme.split("<!-- results -->")[1].split("<!-- /results -->")[0]
    assert "../../" not in readme

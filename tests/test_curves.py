"""The curves behind C4, C5 and C8, and what the paper leaves open: each point by hand, as tables and as data."""

import numpy as np
import pandas as pd
import pytest

from deconvnet import DeconvNet
from deconvnet.config.paths import ROOT, TABLES
from deconvnet.evaluation import curves, errors
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
    **{f"proposals/rule/{rule}": counts(0.4, 0.4, background=b) for rule, b in (("maximum", 0.4), ("mean", 0.9))},
    "counts/deconvnet": counts(0.4, 0.4), "counts/edeconvnet": counts(0.5, 0.5),
    "counts/edeconvnet_product": counts(0.3, 0.3),
    "objects/image": np.array([0, 0, 1]), "objects/size": np.array([0.1, 0.3, 0.3]),
    **{f"objects/{what}/{m}": np.array([0.2, 0.4, 0.6]) for what in ("recall", "iou") for m in curves.TWO},
    "deconvnet/energy": np.array([[0.1, 0.2, 0.3, 0.4, 0.5]] * 3), "deconvnet/energy_image": np.array([0, 1, 1]),
}  # fmt: skip
BILINEAR = {"bilinear/counts": counts(0.2, 0.2), "bilinear/energy": RUN["deconvnet/energy"] / 2}
BILINEAR |= {"bilinear/energy_image": RUN["deconvnet/energy_image"]}
KINDS = {w: {"value": 9.0, "ci": [8.0, 10.0]} for w in (*errors.KINDS, *errors.POOLED, "object_iou")}
MEASURED = curves.Measured([RUN], images=2, resamples=200, seed=0)


def values(points: dict) -> list[float]:
    return [round(value, 6) for value, _ in points.values()]


def test_mean_iou_by_the_numbers_of_proposals_that_were_counted():
    best, largest = curves.mean_iou_by_count(MEASURED, [1, 2, 4]).values()
    assert (list(best), values(best)) == (["1", "2", "4"], [10, 20, 40])
    assert (list(largest), values(largest)) == (["1", "2"], [5, 10])
    assert best["2"][1] == pytest.approx((20, 20))  # both images are alike, and so is every resample


@pytest.mark.parametrize("what", ["recall", "iou"])
def test_objects_by_size(what):
    lines = curves.objects_by_size(MEASURED, [0.2, 0.3], what)
    assert list(lines) == ["FCN-8s", "DeconvNet"]
    for points in lines.values():
        assert list(points) == ["< 0.2, n = 1", "0.2–0.3, n = 0", "≥ 0.3, n = 2"]
        assert values(points) == pytest.approx([20, float("nan"), 50], nan_ok=True)
        assert points["≥ 0.3, n = 2"][1] == (pytest.approx(40), pytest.approx(60))  # either object alone


def test_energy_layer_by_layer():
    lines = curves.energy_by_layer(MEASURED, BILINEAR)
    assert list(lines["unpooling (DeconvNet)"]) == ["unpool2", "deconv2", "unpool1", "deconv1"]
    assert values(lines["unpooling (DeconvNet)"]) == [20, 30, 40, 50]
    assert values(lines["bilinear upsampling"]) == [10, 15, 20, 25]
    assert values(lines[curves.CHANCE]) == [10] * 4
    assert "bilinear upsampling" not in curves.energy_by_layer(MEASURED, {})


@pytest.fixture
def page(tmp_path):
    titled = {
        "C4: mean IoU in %": ("proposals", curves.mean_iou_by_count(MEASURED, [1, 2, 4])),
        "C5: recall in %": ("side", curves.objects_by_size(MEASURED, [0.2], "recall")),
        "C8: energy in %": ("layer", curves.energy_by_layer(MEASURED, BILINEAR)),
    }
    path = tmp_path / "curves.md"
    path.write_text(tables.curves_page(titled, "a caption"))
    return path


def test_the_page_has_every_point_with_its_interval(page):
    (c4, best), (_, sizes), (_, layers) = site.markdown_tables(page)
    assert c4 == "C4: mean IoU in %, with 95 % intervals."
    assert best.loc["2"].tolist() == ["20.0 [20.0, 20.0]", "10.0 [10.0, 10.0]"]
    assert best.loc["4"].tolist() == ["40.0 [40.0, 40.0]", "–"]  # not counted in that order
    assert sizes.loc["≥ 0.2, n = 2", "DeconvNet"] == "50.0 [40.0, 60.0]"
    assert layers.loc["deconv1", "bilinear upsampling"].startswith("25.0 [")


def test_the_data_file_has_the_same_points():
    first, *_, last = curves.records({"proposals": curves.mean_iou_by_count(MEASURED, [1, 2, 4])})["proposals"]
    assert (first["line"], first["x"]) == ("best first (objectness)", "1")
    assert [first["value"], *first["ci"]] == pytest.approx([10, 10, 10])
    assert (last["line"], last["x"], last["value"]) == ("largest first (figure 6)", "2", pytest.approx(10))


# What the paper leaves open


def test_both_rules_of_the_ensemble_are_named_whichever_is_the_default():
    product = {"counts/edeconvnet": RUN["counts/edeconvnet_product"]}
    for run, rule in ((RUN, "mean"), (RUN | product, "product")):
        measured = curves.Measured([run], images=2, resamples=20, seed=0)
        rows = {row["method"]: row for row in curves.beyond(measured, BILINEAR, rule)}
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
    path.write_text(tables.beyond_page(curves.beyond(MEASURED, BILINEAR, "mean"), {"FCN-8s": 0.051}, "a caption"))
    (text, rules), (_, calibrated) = site.markdown_tables(path)
    assert "With the mean 69.2 % of the pixels are predicted as background, with the maximum 50.0 %" in text
    assert rules.loc["DeconvNet, mean of the proposals' scores"].tolist()[1:] == ["69.2", "1"]
    assert rules.loc["ground truth"].tolist() == ["–", "0.0", "–"]
    assert calibrated.loc["FCN-8s"].item() == "5.1"


# Where the pages come from


def test_every_page_says_which_notebook_made_it(page, tmp_path):
    row = {"id": "C1", "statement": "s", "paper": "p", "paper_effect": None, "measured": "m", "unit": "points"}
    row |= {"effect": 1.0, "ci": [0.5, 2.0], "runs": 4, "seeds": 1, "verdict": "replicated"}
    layers = architecture.layers(DeconvNet(blocks=[(4, 1)], fc=8, size=8))
    results = pd.DataFrame({"mean": [1.0]}, index=["FCN-8s"])
    tables.write(pd.read_csv(TABLES / "table1.csv", index_col="method"), results, "c", tmp_path)
    pages = {
        "claims": tables.claims_page([row], "c", 10),
        "curves": page.read_text(),
        "beyond": tables.beyond_page(curves.beyond(MEASURED, {}, "mean"), {"FCN-8s": 0.1}, "c"),
        "errors": tables.errors_page({"fcn8s": KINDS, "deconvnet": KINDS}, "c"),
        "table1": (tmp_path / "table1.md").read_text(),
        "table2": tables.table2_page(layers),
    }
    for name, notebook in (site.MORE | {"claims": "claims", "table1": "evaluate"}).items():
        link = f"../../notebooks/{notebook}.ipynb"
        assert pages[name].count(f"Made by [notebooks/{notebook}.ipynb]({link}).") == 1, name
        assert (TABLES / link).resolve() == ROOT / "notebooks" / f"{notebook}.ipynb"
        (tmp_path / f"{name}.md").write_text(pages[name])
        assert all("Made by" not in text for text, _ in site.markdown_tables(tmp_path / f"{name}.md")[:1]), name
    assert "4 against 1" in pages["claims"]
    readme = tables.for_readme(tmp_path, (ROOT / "README.md").read_text())
    assert "| C1 " in readme
    assert "| missed, %" in readme
    assert "9.0 [8.0, 10.0]" in readme
    assert "../../" not in readme

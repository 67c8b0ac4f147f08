"""Intervals by hand and against SciPy's, the rule of the verdict, and what must read "not run"."""

import json

import numpy as np
import pytest
from deconvnet.evaluation.claims import Claim
from scipy import stats

from deconvnet.config.paths import REPORTS, TABLES
from deconvnet.evaluation import bootstrap, claims, experiment, per_image
from deconvnet.pipeline.repro import LONG_RUNS

CLASSES = 21


def counts(*images: tuple[dict, dict, dict]) -> np.ndarray:
    """(N, 3, 21): {class: pixels} that are correct, in the ground truth, and predicted, for each image."""
    found = np.zeros((len(images), 3, CLASSES), np.uint32)
    for i, rows in enumerate(images):
        for row, by_class in enumerate(rows):
            for label, pixels in by_class.items():
                found[i, row, label] = pixels
    return found


def drawn(quality: float, images: int, seed: int) -> np.ndarray:
    """Counts of images whose 100 pixels of two classes are correct with probability `quality`."""
    rng = np.random.default_rng(seed)
    correct = rng.binomial(50, quality, (images, 2))
    return counts(*(
        ({0: a, 1: b}, {0: 50, 1: 50}, {0: a + 50 - b, 1: b + 50 - a}) for a, b in correct
    ))  # fmt: skip


def judge(effect, runs, ablations=None, images=60, needs=()) -> dict:
    claim = Claim("C", "statement", "evidence", None, "measured", "points", effect, needs)
    return claims.claims_table([claim], runs, ablations or {}, images, "d", 2000, 0)[0]


def test_interval_by_hand():
    """Two images, one right and one wrong: resamples have (2, 0), (1, 1) or (0, 2), a quarter, half, a quarter."""
    right, wrong = ({0: 4}, {0: 4}, {0: 4}), ({}, {0: 4}, {1: 4})
    # right alone: IoU 1. Wrong alone: 0. Both: class 0 has 4 / (8 + 4 - 4), class 1 0 of 4: (0.5 + 0) / 2.
    run = {"counts/a": counts(right, wrong)}
    effect, ci = bootstrap.bootstrap(bootstrap.iou("counts/a"), [run], 2, 2000, 0)
    assert effect == pytest.approx(25)
    assert ci == pytest.approx((0, 100))


def test_interval_over_seeds_by_hand():
    """Two runs, in each of which all images are alike: resamples have (2, 0), (1, 1) or (0, 2) of them."""

    def constant(run, weights):
        return np.full(len(weights), run["value"])

    runs = [{"value": 1.0}, {"value": 3.0}]
    assert bootstrap.bootstrap(constant, runs, 5, 2000, 0) == (2.0, (1.0, 3.0))
    assert bootstrap.bootstrap(constant, runs[:1], 5, 2000, 0) == (1.0, (1.0, 1.0))


def test_interval_agrees_with_scipy():
    better, worse = drawn(0.8, 80, 1), drawn(0.7, 80, 2)

    def difference(at):
        a, b = (100 * per_image.mean_iou(t[at].sum(axis=0)) for t in (better, worse))
        return a - b

    options = {"n_resamples": 6000, "vectorized": False, "method": "percentile", "rng": np.random.default_rng(3)}
    theirs = stats.bootstrap((np.arange(80),), difference, **options).confidence_interval
    effect = bootstrap.minus(bootstrap.iou("counts/a"), bootstrap.iou("counts/b"))
    found, ci = bootstrap.bootstrap(effect, [{"counts/a": better, "counts/b": worse}], 80, 6000, 4)
    assert found == pytest.approx(difference(np.arange(80)))
    width = theirs.high - theirs.low
    assert ci == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)


@pytest.mark.parametrize(
    ("first", "second", "verdict"), [(0.8, 0.6, "replicated"), (0.6, 0.8, "not replicated"), (0.7, 0.7, "inconclusive")]
)
def test_verdicts_of_three_random_cases(first, second, verdict):
    run = {"counts/a": drawn(first, 60, 1), "counts/b": drawn(second, 60, 2)}
    row = judge(bootstrap.minus(bootstrap.iou("counts/a"), bootstrap.iou("counts/b")), [run])
    assert row["verdict"] == verdict
    assert row["ci"][0] <= row["effect"] <= row["ci"][1]
    assert row["seeds"] == 1


def test_verdict_is_by_the_interval_alone():
    assert [claims.verdict(*ci) for ci in ((0.1, 5), (-5, -0.1), (-0.1, 5), (0, 5), (-5, 0))] == [
        "replicated", "not replicated", "inconclusive", "inconclusive", "inconclusive"
    ]  # fmt: skip


def test_a_comparison_is_paired():
    """A method against itself: the difference is 0 in every resample."""
    run = {"counts/a": drawn(0.7, 60, 1)}
    row = judge(bootstrap.minus(bootstrap.iou("counts/a"), bootstrap.iou("counts/a")), [run])
    assert (row["effect"], row["ci"]) == (0, [0, 0])


def test_the_ensemble_must_beat_the_better_member():
    run = {"counts/a": drawn(0.7, 60, 1), "counts/b": drawn(0.6, 60, 2), "counts/c": drawn(0.8, 60, 3)}
    iou = {name: bootstrap.iou(f"counts/{name}") for name in "abc"}
    row, other = (judge(bootstrap.minus(*(iou[name] for name in names)), [run]) for names in ("abc", "ac"))
    assert row["effect"] == other["effect"]
    assert row["verdict"] == "not replicated"


def test_slope_is_points_for_each_doubling():
    right, wrong = ({0: 1}, {0: 1}, {0: 1}), ({}, {0: 1}, {0: 0})
    # of 8 images 1, 2, 4 and 8 are right: IoU of the one class 12.5, 25, 50, 100 %
    run = {f"w/{n}": counts(*([right] * n + [wrong] * (8 - n))) for n in (1, 2, 4, 8)}
    found = bootstrap.slope("w/")(run, np.ones((1, 8), int))
    assert found == pytest.approx(np.polyfit([0, 1, 2, 3], [12.5, 25, 50, 100], 1)[:1])


def test_objects_count_as_often_as_their_image_is_in_a_resample():
    run = {
        "objects/size": np.array([0.1, 0.1, 0.1, 0.5]),
        "objects/image": np.array([0, 0, 1, 1]),
        "objects/recall/m": np.array([1.0, 0.5, 0.0, 0.9]),
    }
    measure = bootstrap.object_measure("recall", "m", 0, 0.25)
    assert measure(run, np.array([[1, 1], [2, 0], [0, 2]])).tolist() == pytest.approx([50, 75, 0])
    assert np.isnan(bootstrap.object_measure("recall", "m", 0.25, 0.4)(run, np.ones((1, 2), int))).all()


def test_without_ground_truth_a_claim_is_not_run():
    nothing = {"counts/a": np.zeros((60, 3, CLASSES), np.uint32)}
    assert judge(bootstrap.iou("counts/a"), [nothing])["verdict"] == "not run"


def test_results_of_another_experiment_are_not_taken(tmp_path):
    per_image.save(tmp_path / "seeds.npz", {"1/counts/a": drawn(0.8, 3, 1)})
    (tmp_path / "seeds.json").write_text('{"experiment": "0123abcd"}')
    assert list(claims.load_same_experiment(tmp_path / "seeds", "0123abcd")) == ["1/counts/a"]
    assert claims.load_same_experiment(tmp_path / "seeds", "ffffffff") == {}
    assert claims.load_same_experiment(tmp_path / "missing", "0123abcd") == {}


# The committed claims table


def test_the_committed_table_is_complete_and_its_page_has_the_same_verdicts():
    rows, page = json.loads((REPORTS / "claims.json").read_text()), (TABLES / "claims.md").read_text()
    lines = {line.split("|")[1].strip(): line for line in page.split("\n") if line.startswith("| C")}
    ids = ["C1", "C2", "C3a", "C3b", "C4a", "C4b", "C5a", "C5b", "C6", "C7", "C8a", "C8b", "C8c", "C8d"]
    assert [row["id"] for row in rows] == ids == list(lines)
    for row in rows:
        assert {"statement", "paper", "dataset"} <= set(row)
        assert row["verdict"] == claims.verdict(*row["ci"]), row["id"]  # of the default, every claim was run
        assert row["ci"][0] <= row["ci"][1]
        assert row["seeds"] == (1 if row["id"] in ("C6", "C7", "C8c") else 4)
        assert f"**{row['verdict']}**" in lines[row["id"]]
        assert f"{row['effect']:+.1f} [{row['ci'][0]:+.1f}, {row['ci'][1]:+.1f}]" in lines[row["id"]]


def test_the_committed_long_runs_are_of_the_committed_experiment():
    records = [json.loads((REPORTS / f"{name}.json").read_text()) for name in LONG_RUNS]
    found = {record["experiment"] for record in [*records, *records[0]["variants"].values()]}
    assert found == {experiment.read()}

"""Intervals by hand, against SciPy's and by simulation; p-values, and Holm's correction of them."""

import numpy as np
import pytest
from counted import counts, drawn
from scipy import stats

from deconvnet.evaluation import bootstrap, per_image
from deconvnet.evaluation.bootstrap import estimate
from deconvnet.evaluation.measures import iou, minus


def constant(run, weights):
    return np.full(len(weights), run["value"])


def mean(run, weights):
    return weights @ run["values"] / len(run["values"])


def test_interval_by_hand():
    """Two images, one right and one wrong: resamples have (2, 0), (1, 1) or (0, 2), a quarter, half, a quarter."""
    right, wrong = ({0: 4}, {0: 4}, {0: 4}), ({}, {0: 4}, {1: 4})
    # right alone: IoU 1. Wrong alone: 0. Both: class 0 has 4 / (8 + 4 - 4), class 1 0 of 4: (0.5 + 0) / 2.
    found = estimate(iou("a"), [{"counts/a": counts(right, wrong)}], 2, 2000, 0)
    assert found.value == pytest.approx(25)
    assert found.ci == pytest.approx((0, 100))
    assert found.p == pytest.approx(0.5, abs=0.06)  # two-sided: a quarter of the resamples are 0, none is below


def test_interval_over_seeds_is_students():
    """In each run all images are alike: what is left is the t interval of the two values, 2 ± 12.7 · 1."""
    found = estimate(constant, [{"value": 1.0}, {"value": 3.0}], 5, 20_000, 0)
    assert (found.value, found.per_seed) == (2.0, (1.0, 3.0))
    assert found.ci == pytest.approx(stats.t.interval(0.95, 1, 2, 1), rel=0.1)
    alone = estimate(constant, [{"value": 1.0}], 5, 2000, 0)
    assert (alone.value, alone.ci, alone.per_seed) == (1.0, (1.0, 1.0), (1.0,))


def test_interval_agrees_with_scipy():
    better, worse = drawn(0.8, 80, 1), drawn(0.7, 80, 2)

    def difference(at):
        a, b = (100 * per_image.mean_iou(t[at].sum(axis=0)) for t in (better, worse))
        return a - b

    options = {"n_resamples": 6000, "vectorized": False, "method": "percentile", "rng": np.random.default_rng(3)}
    theirs = stats.bootstrap((np.arange(80),), difference, **options).confidence_interval
    found = estimate(minus(iou("a"), iou("b")), [{"counts/a": better, "counts/b": worse}], 80, 6000, 4)
    assert found.value == pytest.approx(difference(np.arange(80)))
    width = theirs.high - theirs.low
    assert found.ci == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)


def test_the_interval_covers_the_truth_and_one_that_resamples_four_seeds_does_not():
    """Effects of 60 images and 4 seeds around 0, the seeds' spread as large as that of the mean over images."""
    rng, trials, images = np.random.default_rng(0), 400, 60
    ours = resampled = 0
    for trial in range(trials):
        of_image, of_seed = rng.normal(0, 1, images), rng.normal(0, images**-0.5, 4)
        runs = [{"values": of_image + seed} for seed in of_seed]
        low, high = estimate(mean, runs, images, 400, trial).ci
        ours += low <= 0 <= high
        weights = rng.multinomial(images, np.full(images, 1 / images), size=400)
        chosen = rng.multinomial(4, np.full(4, 0.25), size=400)
        values = ((weights @ np.stack([r["values"] for r in runs]).T / images) * chosen).sum(axis=1) / 4
        low, high = np.percentile(values, [2.5, 97.5])
        resampled += low <= 0 <= high
    assert ours / trials > 0.93
    assert resampled / trials < ours / trials


def test_a_p_value_is_small_for_a_clear_effect_and_spread_for_none():
    rng = np.random.default_rng(1)
    clear = estimate(mean, [{"values": rng.normal(1, 1, 60)}], 60, 2000, 0)
    assert clear.p == pytest.approx(2 / 2001)
    assert estimate(mean, [{"values": -rng.normal(1, 1, 60)}], 60, 2000, 0).p == pytest.approx(2 / 2001)
    none = [estimate(mean, [{"values": rng.normal(0, 1, 60)}], 60, 500, i).p for i in range(200)]
    assert np.mean(np.array(none) < 0.05) < 0.12
    assert 0.3 < np.median(none) < 0.7


def test_holm_by_hand():
    found = bootstrap.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    # in order d, a, c, b times 4, 3, 2, 1, and never less than the one before
    assert found == {"d": pytest.approx(0.02), "a": pytest.approx(0.03), "c": pytest.approx(0.06),
                     "b": pytest.approx(0.06)}  # fmt: skip
    assert bootstrap.holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert bootstrap.holm({}) == {}


def test_nothing_to_measure_is_no_number():
    found = estimate(iou("a"), [{"counts/a": np.zeros((6, 3, 21), np.uint32)}], 6, 200, 0)
    assert np.isnan([found.value, *found.ci, found.p]).all()

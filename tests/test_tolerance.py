"""The tolerance between runs is a prediction interval for one more seed."""

import numpy as np
import pytest

from deconvnet.claims import tolerance
from deconvnet.evaluation.methods import METHODS


def metrics_of(*means: float) -> dict:
    return {method: {"mean_iou": mean} for method, mean in zip(METHODS, means, strict=True)}


def test_tolerance_is_the_prediction_interval_for_one_more_run():
    """By hand: variances 0.01 and four times 0, so 0.002 each; 99.8 % of t (10 degrees of freedom) lie within 4.144."""
    runs = [metrics_of(first, 0.2, 0.3, 0.4, 0.5) for first in (0.1, 0.2, 0.3)]
    spread = tolerance.spread(runs)
    assert spread["fcn8s"]["mean_iou"]["values"] == [0.1, 0.2, 0.3]
    for found in spread.values():
        assert found["mean_iou"]["tolerance"] == pytest.approx(4.144 * 0.002**0.5 * (4 / 3) ** 0.5, rel=1e-3)


def test_the_spread_can_be_that_of_other_runs():
    """One run whose spread over seeds is taken from three others: their variances, and a mean of one run."""
    others = [metrics_of(first, 0.2, 0.3, 0.4, 0.5) for first in (0.1, 0.2, 0.3)]
    spread = tolerance.spread([metrics_of(0.7, 0.1, 0.1, 0.1, 0.1)], spread_of=others)
    assert spread["fcn8s"]["mean_iou"]["values"] == [0.7]
    assert spread["fcn8s"]["mean_iou"]["tolerance"] == pytest.approx(4.144 * 0.002**0.5 * 2**0.5, rel=1e-3)


@pytest.mark.parametrize(("independent", "most", "least"), [(5, 5, 500), (1, 20, 495)])
def test_few_runs_of_unchanged_code_are_out_of_tolerance(independent, most, least):
    """500 runs that differ as four seeds do, methods independently or all as one; then one method is worse by 0.1."""
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

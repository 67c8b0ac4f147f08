"""Each measure of the claims on a drawn example counted by hand, and that it can come out the other way."""

import numpy as np
import pytest
from counted import counts

from deconvnet.evaluation import measures

ONE = np.ones((1, 2), int)  # two images, each once
RUN = {
    "objects/size": np.array([0.1, 0.1, 0.1, 0.5]),
    "objects/image": np.array([0, 0, 1, 1]),
    "objects/label": np.array([3, 3, 4, 5]),
    "objects/recall/m": np.array([1.0, 0.5, 0.0, 0.3]),
    "objects/other/m": np.array([0.0, 0.2, 0.0, 0.7]),
    "objects/majority/m": np.array([3, 3, 0, 9]),
    "objects/contour/m": np.array([0.9, 0.4, 0.0, 0.1]),
    "objects/majority/n": np.array([3, 3, 4, 5]),
    "objects/contour/n": np.array([0.6, 0.2, 0.5, 0.8]),
}


def value(measure, run=RUN, weights=ONE) -> float:
    return measure(run, weights).tolist()[0]


def test_the_names_of_counts():
    assert measures.key("counts", "fcn8s") == "counts/fcn8s"
    assert measures.key("counts", "next/fcn8s") == "next/counts/fcn8s"
    assert measures.key("objects/recall", "ablated/deconvnet") == "ablated/objects/recall/deconvnet"
    assert measures.key("proposals", "best/50") == "proposals/best/50"


def test_objects_count_as_often_as_their_image_is_in_a_resample():
    measure = measures.objects("recall", "m", 0, 0.25)
    assert measure(RUN, np.array([[1, 1], [2, 0], [0, 2]])).tolist() == pytest.approx([50, 75, 0])
    assert np.isnan(measures.objects("recall", "m", 0.25, 0.4)(RUN, ONE)).all()


def test_an_object_is_split_if_both_shares_are_a_fifth():
    assert value(measures.objects("split", "m")) == pytest.approx(100 * 2 / 4)
    assert value(measures.objects("split", "m", high=0.25)) == pytest.approx(100 / 3)
    assert value(measures.objects("other", "m")) == pytest.approx(100 * 0.9 / 4)


def test_contours_are_compared_on_objects_that_both_call_right():
    both = value(measures.contour_difference("m", "n"))
    assert both == pytest.approx(100 * (0.3 + 0.2) / 2)  # the first two; m misses the third and confuses the fourth
    assert value(measures.contour_difference("n", "m")) == pytest.approx(-both)


def test_contours_do_not_follow_from_recognition():
    """n calls every object right and m half of them: that alone moves nothing."""
    same = RUN | {"objects/contour/n": RUN["objects/contour/m"]}
    assert value(measures.contour_difference("m", "n"), same) == 0


def energies(shares, blind, iou=(0.1, 0.5, 0.9)) -> dict:
    return {"energy/m": np.array(shares), "energy_blind/m": np.array(blind), "energy_iou/m": np.array(iou),
            "energy_image/m": np.array([0, 0, 1])}  # fmt: skip


def test_excess_is_the_share_less_that_of_a_map_alike_for_all():
    run = energies([[0.5, 0.6]] * 3, [[0.4, 0.6]] * 3)
    assert value(measures.energy("m", 0, "excess"), run) == pytest.approx(10)
    assert value(measures.energy("m", -1, "excess"), run) == pytest.approx(0)  # most energy, but it knows no object
    assert value(measures.energy("m", -1), run) == pytest.approx(60)


def test_what_deconvolution_gains_is_over_the_unpooled_map_of_its_block():
    # unpool, deconv, unpool, deconv
    run = energies([[0.2, 0.4, 0.3, 0.4]] * 3, [[0.1] * 4] * 3)
    assert value(measures.deconvolution_gain("m"), run) == pytest.approx(100 * (0.2 + 0.1) / 2)
    other = energies([[0.4, 0.2, 0.4, 0.3]] * 3, [[0.1] * 4] * 3)
    assert value(measures.deconvolution_gain("m"), other) == pytest.approx(-15)


@pytest.mark.parametrize(("iou", "sign"), [((0.1, 0.5, 0.9), 1), ((0.9, 0.5, 0.1), -1)])
def test_rank_correlation_with_the_iou_of_objects(iou, sign):
    run = energies([[0.2], [0.3], [0.8]], [[0.1]] * 3, iou)
    assert value(measures.rank_correlation("m", -1), run) == pytest.approx(100 * sign)


def test_a_measure_that_does_not_track_quality_has_no_correlation():
    rng = np.random.default_rng(0)
    n = 600
    run = {"energy/m": rng.random((n, 1)), "energy_blind/m": np.zeros((n, 1)), "energy_iou/m": rng.random(n),
           "energy_image/m": np.arange(n) % 2}  # fmt: skip
    assert abs(value(measures.rank_correlation("m", -1), run)) < 15


def test_the_ensemble_is_compared_with_the_better_member():
    right, half = ({0: 2}, {0: 2}, {0: 2}), ({0: 1}, {0: 2}, {0: 1})
    run = {"counts/a": counts(right, half), "counts/b": counts(half, half), "next/counts/b": counts(right, right)}
    a, b, following = measures.iou("a"), measures.iou("b"), measures.iou("next/b")
    assert value(measures.minus(a, b), run) == pytest.approx(25)
    assert value(measures.minus(a, b, following), run) == pytest.approx(-25)

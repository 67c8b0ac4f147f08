"""Pixels missed, invented and confused, on drawn examples counted by hand."""

import numpy as np
import pytest

from deconvnet.data.voc import VOID
from deconvnet.evaluation import errors, per_image
from deconvnet.report import paper_figures, tables

# 12 pixels, one of them void: of the other 11, 2 are missed, 1 is invented, 1 is confused
GROUND_TRUTH = np.array([[0, 0, 1, 1], [0, VOID, 1, 2], [2, 2, 0, 2]], np.uint8)
PREDICTED = np.array([[0, 1, 1, 0], [0, 2, 1, 2], [2, 0, 0, 1]], np.uint8)
PREDICTED_TOO = np.array([[0, 0, 1, 2], [0, 2, 1, 2], [2, 2, 0, 2]], np.uint8)  # one pixel confused


def counts(*predictions):
    return np.stack([per_image.image_counts(GROUND_TRUTH, p) for p in predictions])


def test_shares_by_hand():
    found = errors.shares(counts(PREDICTED)[0])
    assert found["missed"] == pytest.approx(2 / 11)
    assert found["invented"] == pytest.approx(1 / 11)
    assert found["confused"] == pytest.approx(1 / 11)
    assert found["precision"] == pytest.approx(4 / 6)
    assert found["recall"] == pytest.approx(4 / 7)


def test_the_map_shows_what_the_shares_count():
    shown = errors.error_map(GROUND_TRUTH, PREDICTED)
    assert shown.tolist() == [[0, 2, 0, 1], [0, 0, 0, 0], [0, 1, 0, 3]]
    rng = np.random.default_rng(0)
    for _ in range(20):
        ground_truth, predicted = rng.integers(0, 4, (2, 9, 7)).astype(np.uint8)
        ground_truth[rng.random((9, 7)) < 0.2] = VOID
        found = errors.shares(per_image.image_counts(ground_truth, predicted))
        shown = errors.error_map(ground_truth, predicted)[ground_truth != VOID]
        for value, kind in enumerate(errors.KINDS, start=1):
            assert found[kind] == pytest.approx((shown == value).mean())


@pytest.mark.parametrize(
    ("predicted", "worst"),
    [
        (np.zeros_like(GROUND_TRUTH), "missed"),
        (np.where(GROUND_TRUTH == 0, 7, GROUND_TRUTH), "invented"),
        (np.where(np.isin(GROUND_TRUTH, (1, 2)), 3 - GROUND_TRUTH, GROUND_TRUTH), "confused"),
    ],
)
def test_each_kind_can_be_the_only_one(predicted, worst):
    found = errors.shares(per_image.image_counts(GROUND_TRUTH, np.where(predicted == VOID, 0, predicted)))
    assert [kind for kind in errors.KINDS if found[kind] > 0] == [worst]


def test_decomposition_has_values_intervals_and_classes():
    run = {"counts/a": counts(PREDICTED, PREDICTED_TOO)}
    run |= {"objects/size": np.ones(2), "objects/image": np.arange(2), "objects/iou/a": np.array([0.25, 0.75])}
    found = errors.decompose([run], ("a",), 500, 0)["a"]
    assert found["confused"]["value"] == pytest.approx(100 * 2 / 22)
    assert found["missed"]["value"] == pytest.approx(100 * 2 / 22)
    low, high = found["missed"]["ci"]
    assert (low, high) == (0, pytest.approx(100 * 4 / 22))  # resamples hold either image twice
    assert found["object_iou"]["value"] == pytest.approx(50)
    assert found["object_iou"]["per_seed"] == [pytest.approx(50)]
    twice = errors.decompose([run, run], ("a",), 500, 0)["a"]
    assert twice["missed"] == found["missed"] | {"per_seed": found["missed"]["per_seed"] * 2}  # they do not differ
    assert twice["per_class"]["aeroplane"] == found["per_class"]["aeroplane"]
    assert found["per_class"]["aeroplane"] == {"precision": pytest.approx(4 / 6), "recall": pytest.approx(4 / 6)}
    assert np.isnan(found["per_class"]["cow"]["recall"])


def test_two_methods_are_compared_pair_by_pair():
    run = {"counts/a": counts(PREDICTED, PREDICTED), "counts/b": counts(PREDICTED_TOO, PREDICTED_TOO)}
    run |= {"objects/size": np.ones(2), "objects/image": np.arange(2)}
    run |= {"objects/iou/a": np.array([0.2, 0.4]), "objects/iou/b": np.array([0.3, 0.5])}
    found = errors.compare([run], "a", "b", 200, 0)
    assert found["missed"].value == pytest.approx(100 * 2 / 11)
    assert found["missed"].ci == pytest.approx((100 * 2 / 11, 100 * 2 / 11))  # both images are alike
    assert found["confused"].value == pytest.approx(0)
    assert found["object_iou"].value == pytest.approx(-10)
    text = tables.difference_text(found)
    assert "higher: missed +18.2 [+18.2, +18.2], invented +9.1" in text
    assert "lower: precision" in text
    assert "not told apart: confused +0.0" in text
    assert tables.difference_text({}) == ""


def test_the_overlay_colours_errors_alone():
    image = np.full((3, 4, 3), (200, 100, 50), np.uint8)
    shown = paper_figures.overlay_errors(image, GROUND_TRUTH, PREDICTED)
    kinds = errors.error_map(GROUND_TRUTH, PREDICTED)
    assert len(np.unique(shown[kinds == 0].reshape(-1, 3), axis=0)) == 1  # grey
    assert {tuple(shown[kinds == k][0]) for k in (1, 2, 3)} == {(0, 114, 178), (213, 94, 0), (230, 159, 0)}


def test_differences_of_classes_by_hand():
    """Class 1: of PREDICTED 2 pixels of 5 in the union are right, of PREDICTED_TOO 2 of 3. Cow is nowhere."""
    run = {"counts/a": counts(PREDICTED_TOO), "counts/b": counts(PREDICTED)}
    found = errors.class_differences([run], "a", "b", 10, 0)
    assert found["aeroplane"].value == pytest.approx(100 * (2 / 3 - 2 / 5))
    assert np.isnan(found["cow"].value)

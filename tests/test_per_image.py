"""The counts for each image from which intervals are made, by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from deconvnet.data.voc import VOID
from deconvnet.evaluation import metrics, per_image

GROUND_TRUTH = np.array([[0, 0, 1, 1], [0, VOID, 1, 2], [2, 2, VOID, 2]], np.uint8)
PREDICTED = np.array([[0, 1, 1, 1], [0, 1, 0, 2], [2, 0, 2, 1]], np.uint8)


def test_image_counts_by_hand():
    found = per_image.image_counts(GROUND_TRUTH, PREDICTED)
    assert found.shape == (3, 21)
    assert found[:, :3].tolist() == [[2, 2, 2], [3, 3, 4], [4, 4, 2]]  # correct, in the ground truth, predicted
    assert found[:, 3:].sum() == 0


def test_mean_iou_of_counts_is_that_of_the_confusion_matrix():
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 5, (6, 2, 20, 30)).astype(np.uint8)
    pairs[:, 0][rng.random((6, 20, 30)) < 0.1] = VOID
    counts = np.stack([per_image.image_counts(*pair) for pair in pairs])
    assert per_image.mean_iou(counts.sum(axis=0)) == pytest.approx(
        metrics.mean_iou(sum(metrics.confusion(*p) for p in pairs))
    )
    assert np.isnan(per_image.mean_iou(np.zeros((3, 21))))


def test_background_share_by_hand():
    counts = np.stack([per_image.image_counts(GROUND_TRUTH, p) for p in (PREDICTED, np.zeros_like(PREDICTED))])
    assert per_image.background_share(counts) == pytest.approx(100 * (4 + 10) / 20)
    assert np.isnan(per_image.background_share(0 * counts))


def test_near_boundaries_by_hand():
    instances = np.zeros((7, 7), np.uint8)
    instances[:, 3:] = 1  # a boundary between columns 2 and 3
    labels = np.where(instances == 1, 8, 0).astype(np.uint8)
    found = per_image.near_boundaries(labels, instances, 1)
    assert (found[:, [0, 5, 6]] == VOID).all()
    assert (found[:, [1, 2]] == 0).all()  # the two pixels at the boundary, and one more on each side
    assert (found[:, [3, 4]] == 8).all()
    assert (per_image.near_boundaries(labels, np.zeros_like(instances), 1) == VOID).all()


def test_object_iou_leaves_out_void_and_other_objects_of_the_class():
    labels = np.array([[8, 8, 8, 0, 8, VOID]], np.uint8)
    instances = np.array([[1, 1, 1, 0, 2, 2]], np.uint8)
    predicted = np.array([[8, 8, 0, 8, 8, 8]], np.uint8)
    dog, around = SimpleNamespace(instance=1, label=8), np.array([0, 0, 6, 1])
    # 2 of its 3 pixels, and 1 of background; another dog and void do not count
    assert per_image.object_iou(labels, instances, predicted, dog, around) == pytest.approx(2 / 4)
    assert per_image.object_iou(labels, instances, predicted, dog, np.array([-2, -1, 3, 5])) == pytest.approx(2 / 3)
    assert np.isnan(per_image.object_iou(np.full_like(labels, VOID), instances, predicted, dog, around))


@pytest.fixture
def scene(monkeypatch):
    """A dog (class 8) of 10 pixels in image x: 3 are predicted as dog, 2 as background, 4 and 1 as other classes; image
    w is without objects; a second object of x is void only.
    """
    first_row = {
        "labels": [8] * 10 + [VOID] * 2,
        "instances": [1] * 10 + [2] * 2,
        "predicted": [8] * 3 + [0] * 2 + [12] * 4 + [5] + [0] * 2,
    }
    x = {what: np.array([row, *[[0] * 12] * 3], np.uint8) for what, row in first_row.items()}
    labels, instances = ({"w": np.zeros((4, 12), np.uint8), "x": x[what]} for what in ("labels", "instances"))
    monkeypatch.setattr(per_image.voc, "read_labels", lambda root, name: labels[name])
    monkeypatch.setattr(per_image.voc, "read_instances", lambda root, name: instances[name])
    rows = [("x", 1, 8, 0, 0, 10, 1, 12, 4), ("x", 2, 8, 10, 0, 12, 1, 12, 4)]
    return SimpleNamespace(objects=table(rows), read=lambda method, name: x["predicted"])


def table(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["image", "instance", "label", "x1", "y1", "x2", "y2", "width", "height"])


def test_object_counts_by_hand(scene):
    found = per_image.object_counts(["w", "x"], scene.objects, ("m",), 1, scene.read)
    expected = {"image": 1, "size": (10 / 48) ** 0.5, "label": 8}  # its image is the second
    expected |= {"recall/m": 0.3, "iou/m": 0.3, "contour/m": 0.3, "other/m": 0.5, "majority/m": 12}
    assert {key: value.tolist() for key, value in found.items()} == {
        f"objects/{key}": [pytest.approx(value)] for key, value in expected.items()
    }


def test_contour_by_hand(monkeypatch):
    """A dog of 8 × 8 pixels, of which 4 × 4 are further than one from a pixel at the boundary. Its upper two rows are
    missed by both methods, and one pixel below it is labelled dog; "hole" misses the 4 × 4 too.
    """
    instances = np.zeros((12, 12), np.uint8)
    instances[2:10, 2:10] = 1
    predicted = {"m": 8 * instances}
    predicted["m"][2:4], predicted["m"][10, 5] = 0, 8
    predicted["hole"] = predicted["m"].copy()
    predicted["hole"][4:8, 4:8] = 0
    monkeypatch.setattr(per_image.voc, "read_labels", lambda root, name: 8 * instances)
    monkeypatch.setattr(per_image.voc, "read_instances", lambda root, name: instances)
    rows = table([("x", 1, 8, 2, 2, 10, 10, 12, 12)])
    found = per_image.object_counts(["x"], rows, ("m", "hole"), 1, lambda method, name: predicted[method])
    assert found["objects/iou/m"].tolist() == [pytest.approx(48 / 65)]
    assert found["objects/iou/hole"].tolist() == [pytest.approx(32 / 65)]
    for method in predicted:  # of 64 − 16 pixels, 16 of the missed rows are near the boundary
        assert found[f"objects/contour/{method}"].tolist() == [pytest.approx(32 / 49)]
    wider = per_image.object_counts(["x"], rows, ("hole",), 2, lambda method, name: predicted[method])
    assert wider["objects/contour/hole"].tolist() == [pytest.approx(32 / 61)]  # all of it, less the middle 2 × 2


def test_method_counts_by_hand(scene):
    found = per_image.method_counts(["w", "x"], scene.objects, ("m",), 1, scene.read)
    assert found["counts/m"][1, :, [0, 8]].tolist() == [[36, 36, 38], [3, 10, 3]]
    assert found["boundary/m"][1, :, [0, 8]].tolist() == [[24, 24, 26], [3, 10, 3]]  # without the last row
    assert found["counts/m"][0, :, 0].tolist() == [40, 48, 40]
    assert found["boundary/m"][0].sum() == 0  # no boundary in image w
    assert found["objects/recall/m"] == pytest.approx([0.3])

"""IoU by hand and against torchmetrics: void never counts, and an absent class does not count as zero."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import sampled_from

from deconvnet.config import schema
from deconvnet.config.errors import UserError
from deconvnet.data import voc
from deconvnet.data.voc import VOID
from deconvnet.evaluation import metrics
from deconvnet.images import store

GROUND_TRUTH = np.array([[0, 0, 1, 1], [0, VOID, 1, 2], [2, 2, VOID, 2]], np.uint8)
PREDICTED = np.array([[0, 1, 1, 1], [0, 1, 0, 2], [2, 0, 2, 1]], np.uint8)
MATRIX = [[2, 1, 0], [1, 2, 0], [1, 1, 2]]  # row ground truth, column prediction; 10 pixels


def test_confusion_by_hand():
    assert metrics.confusion(GROUND_TRUTH, PREDICTED, 3).tolist() == MATRIX


def test_iou_by_hand():
    # correct / (row + column - correct): 2/(3+4-2), 2/(3+4-2), 2/(4+2-2)
    assert metrics.iou(np.array(MATRIX)).tolist() == pytest.approx([2 / 5, 2 / 5, 1 / 2])
    assert metrics.mean_iou(np.array(MATRIX)) == pytest.approx((2 / 5 + 2 / 5 + 1 / 2) / 3)


@pytest.mark.parametrize(
    ("ground_truth", "predicted", "expected"), [([0, 1], [0, 0], [0.5, 0, np.nan]), ([0, 0], [0, 2], [0.5, np.nan, 0])]
)
def test_a_class_in_one_of_both_maps_counts_as_zero_and_in_neither_not_at_all(ground_truth, predicted, expected):
    matrix = metrics.confusion(np.array([ground_truth]), np.array([predicted]), 3)
    assert metrics.iou(matrix).tolist() == pytest.approx(expected, nan_ok=True)
    assert metrics.mean_iou(matrix) == 0.25
    assert np.isnan(metrics.mean_iou(np.zeros((3, 3), int)))


def agrees_with_torchmetrics(ground_truth: np.ndarray, predicted: np.ndarray, classes: int) -> None:
    """One matrix and one mean over (images, H, W)."""
    from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

    matrix = sum(metrics.confusion(*pair, classes) for pair in zip(ground_truth, predicted, strict=True))
    theirs = MulticlassConfusionMatrix(classes, ignore_index=VOID)
    mean = MulticlassJaccardIndex(classes, average="macro", ignore_index=VOID)
    for pair in zip(torch.from_numpy(predicted).int(), torch.from_numpy(ground_truth).int(), strict=True):
        theirs.update(*pair)
        mean.update(*pair)
    assert (matrix == theirs.compute().numpy()).all()
    assert metrics.mean_iou(matrix) == pytest.approx(mean.compute().item(), rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("classes", [3, 21])
@pytest.mark.parametrize("present", [2, 3])
def test_agrees_with_torchmetrics(classes, present):
    rng = np.random.default_rng(classes + present)
    ground_truth, predicted = rng.integers(0, present, (2, 5, 20, 30)).astype(np.uint8)  # other classes are absent
    ground_truth[rng.random(ground_truth.shape) < 0.1] = VOID
    agrees_with_torchmetrics(ground_truth, predicted, classes)


@pytest.mark.parametrize("ground_truth", [[VOID, VOID], [VOID, 0], [20, 20], [0, 1]])
@pytest.mark.parametrize("predicted", [[0, 0], [20, 20], [1, 0]])
def test_agrees_with_torchmetrics_where_little_is_left(ground_truth, predicted):
    """Classes are absent from the ground truth, from the prediction, from both; where all is void, the mean is NaN."""
    agrees_with_torchmetrics(np.array([[ground_truth]], np.uint8), np.array([[predicted]], np.uint8), 21)


def masks(classes: list[int]):
    return arrays(np.uint8, (3, 5), elements=sampled_from(classes))


@given(ground_truth=masks([0, 1, 20, VOID]), predicted=masks([0, 1, 20]), other=masks([0, 1, 20]))
def test_void_never_counts(ground_truth, predicted, other):
    void = ground_truth == VOID
    matrix = metrics.confusion(ground_truth, predicted)
    assert matrix.sum() == (~void).sum()
    assert (matrix == metrics.confusion(ground_truth, np.where(void, other, predicted))).all()


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (12,), (1, 3, 4)])
def test_a_prediction_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match="one size"):
        metrics.confusion(GROUND_TRUTH, np.zeros(shape, int), 3)


@pytest.mark.parametrize("value", [3, 255, -1])
def test_a_prediction_that_is_no_class_is_refused(value):
    predicted = PREDICTED.astype(int)
    predicted[0, 0] = value
    with pytest.raises(ValueError, match="classes are 0…2"):
        metrics.confusion(GROUND_TRUTH, predicted, 3)


# Objects


def test_object_recall_by_hand():
    instances = np.array([[1, 1, 2], [1, 1, 2], [VOID, 0, 2]])
    ground_truth = np.array([[5, 5, 5], [5, VOID, 5], [VOID, 0, 5]])
    predicted = np.array([[5, 0, 5], [5, 5, 0], [5, 5, 0]])
    assert metrics.object_recall(ground_truth, instances, predicted, 1, 5) == pytest.approx(2 / 3)
    assert metrics.object_recall(ground_truth, instances, predicted, 2, 5) == pytest.approx(1 / 3)


def test_size_bins_begin_at_their_edges():
    """√area ratios 1/16, 3/16, 1/4, 7/16, 1/2, 1 of squares, and 1/4 of a flat box: √(64 / 1024)."""
    sides = np.array([1, 3, 4, 7, 8, 16, 64])
    objects = pd.DataFrame({"x1": 5, "y1": 6, "x2": 5 + sides, "y2": 6 + sides, "width": 16, "height": 16})
    objects.loc[6, ["y2", "width"]] = 7, 64
    found = voc.size_bin(objects, 0.25, 0.5)
    assert found.tolist() == ["small", "small", "medium", "medium", "large", "large", "medium"]


# A whole split


@pytest.fixture
def objects(tmp_path, monkeypatch):
    """Those of two images of 4 × 8 and their label maps: half of a small one in a is found, a large one in b is not."""
    root = tmp_path / "voc"
    monkeypatch.setattr(metrics, "VOC", root)
    monkeypatch.setattr(store, "PREDICTIONS", tmp_path / "predictions")
    rows = []
    for name, label, width in (("a", 3, 2), ("b", 9, 8)):
        labels, predicted = np.zeros((2, 4, 8), int)
        labels[:2, :width] = label
        if name == "a":
            predicted[0, :2] = 3
            labels[3], predicted[3] = VOID, 20
        voc.save_mask(voc.labels_path(root, name), labels)
        voc.save_mask(voc.instances_path(root, name), np.where(labels == VOID, VOID, labels > 0))
        voc.save_mask(store.prediction_path("net", name), predicted)
        rows.append((name, 1, label, 0, 0, width, 2, 8, 4))
    return pd.DataFrame(rows, columns=["image", "instance", "label", "x1", "y1", "x2", "y2", "width", "height"])


@pytest.mark.parametrize("names", [["a", "b"], ["b", "a"]])
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_evaluation_by_hand(objects, names, order):
    """In any order of images and of objects."""
    settings = schema.Evaluation(small=0.4, medium=0.5, figure7_images=1)
    result = metrics.evaluate("net", names, objects.iloc[order], settings)
    # background: 20 + 16 of 20 + 2 + 16 + 16 pixels; bird: 2 of 4; chair: 0 of 16
    assert result.per_class["background"] == pytest.approx(36 / 54)
    assert result.per_class["bird"] == 0.5
    assert result.per_class["chair"] == 0
    assert np.isnan(result.per_class["tvmonitor"])  # predicted on void only
    assert result.per_class["mean"] == result.summary["mean_iou"] == pytest.approx((36 / 54 + 0.5 + 0) / 3)
    assert result.summary["recall_small"] == 0.5
    assert result.summary["recall_large"] == 0
    assert np.isnan(result.summary["recall_medium"])


def test_one_matrix_over_the_split_is_no_mean_of_images(objects):
    matrix = metrics.method_confusion("net", ["a", "b"])
    assert matrix.sum() == 64 - 8  # void
    assert metrics.mean_iou(matrix) == pytest.approx((36 / 54 + 0.5 + 0) / 3)
    alone = [metrics.mean_iou(metrics.method_confusion("net", [name])) for name in ("a", "b")]
    assert alone == pytest.approx([(20 / 22 + 0.5) / 2, (16 / 32 + 0) / 2])


def test_label_maps_of_other_images_are_refused(objects):
    metrics.require_ids("net", ["a"], ["b", "c"])
    with pytest.raises(UserError, match=r"lacks 2 image\(s\): c, d"):
        metrics.require_ids("net", ["a", "c", "d"], ["b"])
    with pytest.raises(UserError, match=r"has, unlisted, 1 image\(s\): b"):
        metrics.require_ids("net", ["a"], [])

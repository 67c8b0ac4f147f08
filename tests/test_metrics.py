"""IoU by hand and against torchmetrics: void never counts, absent classes are no zeros."""

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

TRUTH = np.array([[0, 0, 1, 1], [0, VOID, 1, 2], [2, 2, VOID, 2]], np.uint8)
GUESS = np.array([[0, 1, 1, 1], [0, 1, 0, 2], [2, 0, 2, 1]], np.uint8)
MATRIX = [[2, 1, 0], [1, 2, 0], [1, 1, 2]]  # row truth, column prediction, 10 pixels


def test_confusion_by_hand():
    assert metrics.confusion(TRUTH, GUESS, 3).tolist() == MATRIX


def test_iou_by_hand():
    # hits / (row + column - hits): 2/(3+4-2), 2/(3+4-2), 2/(4+2-2)
    assert metrics.iou(np.array(MATRIX)).tolist() == pytest.approx([2 / 5, 2 / 5, 1 / 2])
    assert metrics.mean_iou(np.array(MATRIX)) == pytest.approx((2 / 5 + 2 / 5 + 1 / 2) / 3)


def test_what_is_predicted_on_void_does_not_matter():
    other = GUESS.copy()
    other[TRUTH == VOID] = 2
    assert (metrics.confusion(TRUTH, other, 3) == metrics.confusion(TRUTH, GUESS, 3)).all()
    assert metrics.confusion(np.full((2, 2), VOID), np.zeros((2, 2), int)).sum() == 0


def test_an_absent_class_is_left_out_of_the_mean():
    matrix = metrics.confusion(np.array([[0, 1]]), np.array([[0, 0]]), 3)
    values = metrics.iou(matrix)
    assert values[:2].tolist() == [0.5, 0]
    assert np.isnan(values[2])
    assert metrics.mean_iou(matrix) == 0.25


def test_a_class_that_is_predicted_only_counts_as_zero():
    matrix = metrics.confusion(np.array([[0, 0]]), np.array([[0, 2]]), 3)
    assert metrics.iou(matrix)[2] == 0
    assert metrics.mean_iou(matrix) == 0.25


def test_nothing_to_count_is_no_number():
    assert np.isnan(metrics.mean_iou(np.zeros((3, 3), int)))


@pytest.mark.parametrize("classes", [3, 21])
@pytest.mark.parametrize("present", [2, 3])
def test_agrees_with_torchmetrics(classes, present):
    from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

    rng = np.random.default_rng(classes + present)
    truth, guess = rng.integers(0, present, (2, 5, 20, 30)).astype(np.uint8)  # other classes are absent from both
    truth[rng.random(truth.shape) < 0.1] = VOID
    matrix = sum(metrics.confusion(*pair, classes) for pair in zip(truth, guess, strict=True))
    theirs = MulticlassConfusionMatrix(classes, ignore_index=VOID)
    mean = MulticlassJaccardIndex(classes, average="macro", ignore_index=VOID)
    for pair in zip(torch.from_numpy(guess).int(), torch.from_numpy(truth).int(), strict=True):
        theirs.update(*pair)
        mean.update(*pair)
    assert (matrix == theirs.compute().numpy()).all()
    assert metrics.mean_iou(matrix) == pytest.approx(mean.compute().item(), rel=1e-5)


@pytest.mark.parametrize("truth", [[VOID, VOID], [VOID, 0], [20, 20], [0, 1]])
@pytest.mark.parametrize("guess", [[0, 0], [20, 20], [1, 0]])
def test_agrees_with_torchmetrics_where_little_is_left(truth, guess):
    """Classes are absent from the truth, from the prediction, from both; where all is void, the mean is no number."""
    from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

    theirs = MulticlassConfusionMatrix(21, ignore_index=VOID)
    mean = MulticlassJaccardIndex(21, average="macro", ignore_index=VOID)
    for metric in (theirs, mean):
        metric.update(torch.tensor([guess]), torch.tensor([truth]))
    matrix = metrics.confusion(np.array([truth], np.uint8), np.array([guess], np.uint8))
    assert (matrix == theirs.compute().numpy()).all()
    assert metrics.mean_iou(matrix) == pytest.approx(mean.compute().item(), rel=1e-6, nan_ok=True)
    assert np.isnan(metrics.mean_iou(matrix)) == (truth == [VOID, VOID])


def masks(classes: list[int]):
    return arrays(np.uint8, (3, 5), elements=sampled_from(classes))


@given(truth=masks([0, 1, 20, VOID]), guess=masks([0, 1, 20]), other=masks([0, 1, 20]))
def test_void_never_counts(truth, guess, other):
    void = truth == VOID
    matrix = metrics.confusion(truth, guess)
    assert matrix.sum() == (~void).sum()
    assert (matrix == metrics.confusion(truth, np.where(void, other, guess))).all()
    blind = np.full_like(truth, VOID)
    assert (matrix + metrics.confusion(blind, other) == matrix).all()


@given(truth=masks([0, 1, VOID]), guess=masks([0, 1, 2]), cut=sampled_from([1, 2, 3, 4]))
def test_batches_add_up(truth, guess, cut):
    parts = [metrics.confusion(truth[:, a:b], guess[:, a:b]) for a, b in ((0, cut), (cut, 5))]
    assert (sum(parts) == metrics.confusion(truth, guess)).all()
    assert (sum(parts[::-1]) == metrics.confusion(truth[::-1], guess[::-1])).all()


def test_one_matrix_over_the_set_is_no_mean_of_images():
    pairs = [(np.array([[0, 1]]), np.array([[0, 1]])), (np.array([[0, 0]]), np.array([[1, 0]]))]
    whole = sum(metrics.confusion(*pair, 2) for pair in pairs)
    assert metrics.mean_iou(whole) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert (sum(metrics.confusion(*pair, 2) for pair in reversed(pairs)) == whole).all()


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (12,), (1, 3, 4)])
def test_a_squashed_prediction_is_refused(shape):
    with pytest.raises(ValueError, match="one size"):
        metrics.confusion(TRUTH, np.zeros(shape, int), 3)


@pytest.mark.parametrize("value", [3, 255, -1])
def test_a_prediction_that_is_no_class_is_refused(value):
    guess = GUESS.astype(int)
    guess[0, 0] = value
    with pytest.raises(ValueError, match="classes are 0…2"):
        metrics.confusion(TRUTH, guess, 3)


# Objects


def test_object_recall_by_hand():
    instances = np.array([[1, 1, 2], [1, 1, 2], [VOID, 0, 2]])
    truth = np.array([[5, 5, 5], [5, VOID, 5], [VOID, 0, 5]])
    guess = np.array([[5, 0, 5], [5, 5, 0], [5, 5, 0]])
    assert metrics.object_recall(truth, instances, guess, 1, 5) == pytest.approx(2 / 3)
    assert metrics.object_recall(truth, instances, guess, 2, 5) == pytest.approx(1 / 3)


def test_size_bins_begin_at_their_edges():
    sides = np.array([1, 3, 4, 7, 8, 16])  # of 16: √area ratios 1/16, 3/16, 1/4, 7/16, 1/2, 1
    objects = pd.DataFrame({"x1": 5, "y1": 6, "x2": 5 + sides, "y2": 6 + sides, "width": 16, "height": 16})
    found = metrics.size_bin(objects, 0.25, 0.5)
    assert found.tolist() == ["small", "small", "medium", "medium", "large", "large"]


def test_size_is_the_root_of_the_area():
    flat = pd.DataFrame({"x1": [0], "y1": [0], "x2": [64], "y2": [1], "width": [64], "height": [16]})
    assert metrics.size_bin(flat, 0.25, 0.5).tolist() == ["medium"]  # √(64/1024) = 1/4


# A whole set


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Two images of 4 × 8: a, with a small object found by half, and b, with a large one that is missed."""
    root = tmp_path / "voc"
    monkeypatch.setattr(metrics, "VOC", root)
    monkeypatch.setattr(store, "PREDICTIONS", tmp_path / "predictions")
    for sub in (voc.LABELS, voc.INSTANCES):
        (root / sub).mkdir(parents=True)
    (tmp_path / "predictions" / "net").mkdir(parents=True)
    rows = []
    for name, label, width in (("a", 3, 2), ("b", 9, 8)):
        labels, guess = np.zeros((2, 4, 8), int)
        labels[:2, :width] = label
        if name == "a":
            guess[0, :2] = 3
            labels[3] = VOID
            guess[3] = 20
        voc.save_mask(voc.labels_path(root, name), labels)
        voc.save_mask(voc.instances_path(root, name), np.where(labels == VOID, VOID, labels > 0))
        voc.save_mask(tmp_path / "predictions" / "net" / f"{name}.png", guess)
        rows.append((name, 1, label, 0, 0, width, 2, 8, 4))
    return pd.DataFrame(rows, columns=["image", "instance", "label", "x1", "y1", "x2", "y2", "width", "height"])


def test_evaluation_by_hand(judged):
    settings = schema.Evaluation(small=0.4, medium=0.5, examples=1)
    result = metrics.evaluate("net", ["a", "b"], judged, settings)
    # background: 20 + 16 of 20 + 2 + 16 + 16 pixels; bird: 2 of 4; chair: 0 of 16
    assert result.per_class["background"] == pytest.approx(36 / 54)
    assert result.per_class["bird"] == 0.5
    assert result.per_class["chair"] == 0
    assert np.isnan(result.per_class["tvmonitor"])  # predicted on void only
    assert result.per_class["mean"] == result.summary["mean_iou"] == pytest.approx((36 / 54 + 0.5 + 0) / 3)
    assert result.summary["recall_small"] == 0.5
    assert result.summary["recall_large"] == 0
    assert np.isnan(result.summary["recall_medium"])


def test_the_order_of_images_does_not_matter(judged):
    forward, backward = metrics.method_confusion("net", ["a", "b"]), metrics.method_confusion("net", ["b", "a"])
    assert (forward == backward).all()
    assert forward.sum() == 64 - 8


def test_other_images_than_the_lists_are_refused(judged):
    metrics.require_ids("net", ["a"], ["b", "c"])
    with pytest.raises(UserError, match=r"lacks 2 image\(s\): c, d"):
        metrics.require_ids("net", ["a", "c", "d"], ["b"])
    with pytest.raises(UserError, match=r"has, unlisted, 1 image\(s\): b"):
        metrics.require_ids("net", ["a"], [])

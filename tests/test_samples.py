"""The counts behind the intervals, by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from deconvnet.data.voc import VOID
from deconvnet.evaluation import metrics, per_image

TRUTH = np.array([[0, 0, 1, 1], [0, VOID, 1, 2], [2, 2, VOID, 2]], np.uint8)
GUESS = np.array([[0, 1, 1, 1], [0, 1, 0, 2], [2, 0, 2, 1]], np.uint8)


def test_tally_by_hand():
    found = per_image.image_counts(TRUTH, GUESS)
    assert found.shape == (3, 21)
    assert found[:, :3].tolist() == [[2, 2, 2], [3, 3, 4], [4, 4, 2]]  # hits, truth, predicted; void never counts
    assert found[:, 3:].sum() == 0


def test_mean_iou_of_tallies_is_that_of_confusions():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 5, (2, 6, 20, 30)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = VOID
    tallies = per_image.split_counts(list("abcdef"), dict(zip("abcdef", truth, strict=True)).__getitem__,
                              dict(zip("abcdef", guess, strict=True)).__getitem__)  # fmt: skip
    whole = sum(metrics.confusion(t, g) for t, g in zip(truth, guess, strict=True))
    assert per_image.mean_iou(tallies.sum(axis=0)) == pytest.approx(metrics.mean_iou(whole))
    assert np.isnan(per_image.mean_iou(np.zeros((3, 21))))


def test_near_contours_by_hand():
    instances = np.zeros((7, 7), np.uint8)
    instances[:, 3:] = 1  # a contour between columns 2 and 3
    labels = np.where(instances == 1, 8, 0).astype(np.uint8)
    found = per_image.near_boundaries(labels, instances, 1)
    assert (found[:, [0, 5, 6]] == VOID).all()
    assert (found[:, [1, 2]] == 0).all()  # the two pixels at the contour, and one more on each side
    assert (found[:, [3, 4]] == 8).all()
    assert (per_image.near_boundaries(labels, np.zeros_like(instances), 1) == VOID).all()


def test_object_iou_leaves_void_and_its_like_out():
    labels = np.array([[8, 8, 8, 0, 8, VOID]], np.uint8)
    instances = np.array([[1, 1, 1, 0, 2, 2]], np.uint8)
    predicted = np.array([[8, 8, 0, 8, 8, 8]], np.uint8)
    dog = SimpleNamespace(instance=1, label=8)
    # 2 of its 3 pixels, 1 of background; another dog and void are nothing to it
    assert per_image.object_iou(labels, instances, predicted, dog, np.array([0, 0, 6, 1])) == pytest.approx(2 / 4)
    assert per_image.object_iou(labels, instances, predicted, dog, np.array([-2, -1, 3, 5])) == pytest.approx(2 / 3)
    assert np.isnan(per_image.object_iou(np.full_like(labels, VOID), instances, predicted, dog, np.array([0, 0, 6, 1])))


def test_objects_by_hand(tmp_path, monkeypatch):
    labels = np.array([[8, 8, 0, 0], [8, VOID, 0, 0]], np.uint8)
    monkeypatch.setattr(per_image.voc, "read_labels", lambda root, name: labels)
    monkeypatch.setattr(per_image.voc, "read_instances", lambda root, name: (labels == 8).astype(np.uint8))
    monkeypatch.setattr(per_image.store, "read_prediction", lambda method, name: np.full((2, 4), 12, np.uint8))
    objects = pd.DataFrame([{"image": "x", "instance": 1, "label": 8, "x1": 0, "y1": 0, "x2": 2, "y2": 2,
                             "width": 4, "height": 2, "pixels": 3}])  # fmt: skip
    found = per_image.object_counts(["w", "x"], objects, ("m",))
    assert found["objects/image"].tolist() == [1]
    assert found["objects/size"].tolist() == pytest.approx([(4 / 8) ** 0.5])
    assert found["objects/recall/m"].tolist() == [0]
    assert found["objects/named/m"].tolist() == [12]
    assert found["objects/other/m"].tolist() == [1]


def test_another_class_is_not_background(monkeypatch):
    labels, guess = np.full((1, 10), 8, np.uint8), np.array([[8, 8, 8, 0, 0, 12, 12, 12, 12, 5]], np.uint8)
    monkeypatch.setattr(per_image.voc, "read_labels", lambda root, name: labels)
    monkeypatch.setattr(per_image.voc, "read_instances", lambda root, name: np.ones_like(labels))
    monkeypatch.setattr(per_image.store, "read_prediction", lambda method, name: guess)
    objects = pd.DataFrame([{"image": "x", "instance": 1, "label": 8, "x1": 0, "y1": 0, "x2": 10, "y2": 1,
                             "width": 10, "height": 1, "pixels": 10}])  # fmt: skip
    found = per_image.object_counts(["x"], objects, ("m",))
    assert (found["objects/recall/m"].item(), found["objects/other/m"].item()) == (0.3, 0.5)


def test_samples_are_kept(tmp_path):
    per_image.save(tmp_path / "deep" / "x.npz", {"a/b": np.arange(3)})
    assert per_image.load(tmp_path / "deep" / "x.npz")["a/b"].tolist() == [0, 1, 2]

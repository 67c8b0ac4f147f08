"""Edges and boxes: lines by hand, the direction across them, recall by hand, and the forest's download."""

import gzip
import hashlib

import numpy as np
import pandas as pd
import pytest

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.evaluation.metrics import size_bin
from deconvnet.images import boxes, store
from deconvnet.proposals import edge_boxes, edges


def settings(**departures):
    return params.validate(params.compose("icons"), "icons").proposals.model_copy(update=departures)


def square(side=80, low=25, high=55):
    """A white square on black, RGB."""
    image = np.zeros((side, side, 3), np.uint8)
    image[low:high, low:high] = 255
    return image


def test_thin_keeps_the_crest_of_a_ramp_alone():
    strength = np.tile(np.array([0, 1, 2, 4, 2, 1, 0], np.float32), (7, 1))
    lines, across = edges.thin(strength, np.zeros((7, 7), np.float32))
    assert (lines == np.tile([0, 0, 0, 1, 0, 0, 0], (7, 1))).all()  # and the strongest is 1
    assert (across == 0).all()


def test_thin_of_nothing_is_nothing():
    lines, _ = edges.thin(np.zeros((5, 5), np.float32), np.zeros((5, 5), np.float32))
    assert (lines == 0).all()


@pytest.mark.parametrize(("axis", "expected"), [(1, 0), (0, np.pi / 2)])
def test_edges_point_across_the_line(axis, expected):
    """A vertical line (axis 1 crosses it) is crossed at 0, a horizontal one at π/2, by gradients and by ridges."""
    step = np.zeros((40, 40, 3), np.uint8)
    ridge = np.zeros((40, 40), np.float32)
    if axis == 1:
        step[:, 20:], ridge[:, 20] = 255, 0.8
    else:
        step[20:], ridge[20] = 255, 0.8
    for lines, across in (edges.gradient_edges(step), edges.ridge_edges(ridge)):
        inner = (slice(8, 32), slice(8, 32))
        on = lines[inner] > 0.5
        assert on.sum() in (24, 48)  # one line, at most two pixels wide
        angle = across[inner][on]
        assert np.minimum(abs(angle - expected), np.pi - abs(angle - expected)).max() < 0.02


def test_the_best_box_frames_the_square():
    for edges in (edges.gradient_edges(square()), edges.ridge_edges(outline(80, 25, 55))):
        found = edge_boxes.find_boxes(edges, settings(step=0.65, overlap=0.75))
        assert boxes.box_iou(found[:1, :4], np.array([[25, 25, 55, 55]])) > 0.6  # no other box does so well
        assert (np.diff(found[:, 4]) <= 0).all()  # best first


def outline(side, low, high):
    probability = np.zeros((side, side), np.float32)
    probability[low:high, [low, high - 1]] = probability[[low, high - 1], low:high] = 0.9
    return probability


def test_an_image_without_edges_has_no_boxes():
    for edges in (
        edges.gradient_edges(np.zeros((60, 60, 3), np.uint8)),
        edges.ridge_edges(np.zeros((60, 60), np.float32)),
    ):
        assert edge_boxes.find_boxes(edges, settings()).shape == (0, 5)


def test_recall_by_hand():
    """Image a: the 2nd box finds the object; image b: none does, and c has no box at all."""
    boxes = {
        "a": np.array([[0, 0, 4, 4, 1], [10, 10, 20, 20, 0.5]], np.float32),
        "b": np.array([[0, 0, 5, 10, 1]], np.float32),
        "c": np.zeros((0, 5), np.float32),
    }
    rows = [("a", 10, 10, 20, 20), ("b", 5, 0, 10, 10), ("c", 0, 0, 40, 40)]
    objects = pd.DataFrame(rows, columns=["image", "x1", "y1", "x2", "y2"]).assign(width=50, height=50)
    assert edge_boxes.recall(boxes, objects, [1, 2, 5]).tolist() == pytest.approx([0, 1 / 3, 1 / 3])
    table = edge_boxes.recall_by_size(boxes, objects, size_bin(objects, 0.15, 0.4), [1, 2])
    assert table.loc[2].to_dict() == pytest.approx({"all": 1 / 3, "small": 0, "medium": 1, "large": 0})


def test_half_an_overlap_is_enough():
    objects = pd.DataFrame([("a", 0, 0, 10, 10)], columns=["image", "x1", "y1", "x2", "y2"])
    half = {"a": np.array([[0, 0, 10, 5, 1]], np.float32)}
    less = {"a": np.array([[0, 0, 10, 4.9, 1]], np.float32)}
    assert edge_boxes.recall(half, objects, [1])[1] == 1
    assert edge_boxes.recall(less, objects, [1])[1] == 0


def test_boundaries_survive_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "BOUNDARIES", tmp_path)
    probability = np.random.default_rng(0).random((7, 9)).astype(np.float32)
    store.save_boundaries("x", probability)
    assert np.abs(store.read_boundaries("x") - probability).max() <= 0.5 / 255 + 1e-6


# The forest's file


@pytest.fixture
def served(tmp_path):
    """A whole gzip file, by a file:// address."""
    path = tmp_path / "served" / "model.yml.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(bytes(range(256)) * 100, mtime=0))
    return path


def fetch(served, folder, sha256=None):
    chosen = settings(edges="forest", forest=served.as_uri(), forest_sha256=sha256)
    return edges.fetch_forest(chosen, folder)


def test_forest_is_fetched_once(served, tmp_path):
    expected = served.read_bytes()
    path = fetch(served, tmp_path / "to", hashlib.sha256(expected).hexdigest())
    assert path.read_bytes() == expected
    served.unlink()
    assert fetch(served, tmp_path / "to") == path


@pytest.mark.parametrize("spoil", ["truncated", "damaged", "page", "missing", "checksum"])
def test_forest_that_is_not_whole_is_never_used(served, tmp_path, spoil):
    whole, sha256 = served.read_bytes(), None
    if spoil == "missing":
        served.unlink()
    elif spoil == "checksum":
        sha256 = "0" * 64
    else:
        damaged = whole[:-6] + b"\0\0" + whole[-4:]
        served.write_bytes({"truncated": whole[:-20], "damaged": damaged, "page": b"<html>"}[spoil])
    with pytest.raises(UserError, match="could not be fetched"):
        fetch(served, tmp_path / "to", sha256)
    assert list((tmp_path / "to").iterdir()) == []
    if spoil != "missing":  # the next try, with a sound file, succeeds
        served.write_bytes(whole)
        assert fetch(served, tmp_path / "to").read_bytes() == whole


def test_forest_that_lies_there_is_checked_too(served, tmp_path):
    """Put there by hand: whole, it is used and its hash recorded; another file under its name is refused ever after."""
    whole, path = served.read_bytes(), tmp_path / "to" / served.name
    path.parent.mkdir()
    path.write_bytes(whole[:-20])
    served.unlink()
    with pytest.raises(UserError, match="what lies there is not: it is not a whole gzip file"):
        fetch(served, path.parent)
    path.write_bytes(whole)
    assert fetch(served, path.parent) == path
    path.write_bytes(gzip.compress(b"another forest"))
    with pytest.raises(UserError, match=hashlib.sha256(whole).hexdigest()):
        fetch(served, path.parent)


def test_a_forest_that_opencv_cannot_read(served):
    with pytest.raises(UserError, match=f"{served} is not a structured forest"):
        edges.forest_edges(np.zeros((20, 20, 3), np.uint8), str(served))

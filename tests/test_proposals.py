"""Edges, boxes and recall by hand, and the download of the structured forest."""

import gzip
import hashlib

import numpy as np
import pandas as pd
import pytest

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.data.voc import size_bin
from deconvnet.images.boxes import box_iou
from deconvnet.proposals import edge_boxes, edges


def settings(**departures):
    chosen = params.validate(params.compose("icons"), "icons").proposals
    return type(chosen)(**(chosen.model_dump() | departures))


def test_thin_keeps_the_crest_of_a_ramp_alone():
    strength = np.tile(np.array([0, 1, 2, 4, 2, 1, 0], np.float32), (7, 1))
    lines, across = edges.thin(strength, np.zeros((7, 7), np.float32))
    assert (lines == np.tile([0, 0, 0, 1, 0, 0, 0], (7, 1))).all()  # and the strongest is 1
    assert (across == 0).all()


@pytest.mark.parametrize(("axis", "expected"), [(1, 0), (0, np.pi / 2)])
def test_edges_point_across_the_line(axis, expected):
    """0 for a vertical line (axis 1 crosses it), π/2 for a horizontal one: of gradients and of ridges."""
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
    """A white square on black, and the same square's outline as a boundary map."""
    image, outline = np.zeros((80, 80, 3), np.uint8), np.zeros((80, 80), np.float32)
    image[25:55, 25:55] = 255
    outline[25:55, [25, 54]] = outline[[25, 54], 25:55] = 0.9
    for found in (edges.gradient_edges(image), edges.ridge_edges(outline)):
        boxes = edge_boxes.find_boxes(found, settings(alpha=0.65, beta=0.75))
        assert box_iou(boxes[:1, :4], np.array([[25, 25, 55, 55]])) > 0.6  # no other box overlaps it so much
        assert (np.diff(boxes[:, 4]) <= 0).all()  # best first


def test_an_image_without_edges_has_no_boxes():
    blank = np.zeros((60, 60), np.float32)
    for found in (edges.gradient_edges(np.zeros((60, 60, 3), np.uint8)), edges.ridge_edges(blank)):
        assert (found[0] == 0).all()
        assert edge_boxes.find_boxes(found, settings()).shape == (0, 5)


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


# The forest's file


@pytest.fixture
def served(tmp_path):
    """A complete gzip file, which has a file:// address."""
    path = tmp_path / "served" / "model.yml.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(bytes(range(256)) * 100, mtime=0))
    return path


def fetch(served, folder, sha256=None):
    chosen = settings(edges="forest", forest=served.as_uri(), forest_sha256=sha256)
    return edges.fetch_forest(chosen, folder)


@pytest.mark.parametrize("spoil", ["truncated", "damaged", "page", "missing", "checksum"])
def test_only_a_complete_forest_with_the_right_checksum_is_used(served, tmp_path, spoil):
    complete, folder = served.read_bytes(), tmp_path / "to"
    right = hashlib.sha256(complete).hexdigest()
    damaged = complete[:-6] + b"\0\0" + complete[-4:]
    files = {"truncated": complete[:-20], "damaged": damaged, "page": b"<html>", "checksum": complete}
    if spoil == "missing":
        served.unlink()
    else:
        served.write_bytes(files[spoil])
    with pytest.raises(UserError, match="could not be fetched"):
        fetch(served, folder, "0" * 64 if spoil == "checksum" else None)
    assert list(folder.iterdir()) == []
    served.write_bytes(complete)  # the next try succeeds
    assert fetch(served, folder, right).read_bytes() == complete


def test_a_forest_that_opencv_cannot_read(served):
    with pytest.raises(UserError, match=f"{served} is not a structured forest"):
        edges.forest_edges(np.zeros((20, 20, 3), np.uint8), str(served))

"""Score maps, label maps and boundary maps on disk: how exact they are, and the same bytes each time."""

import time
import zipfile

import numpy as np
import pytest

from deconvnet.images import store

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name in ("SCORES", "PREDICTIONS", "BOUNDARIES"):
        monkeypatch.setattr(store, name, tmp_path / name.lower())


@pytest.mark.parametrize(
    ("largest", "step"), [(0, 1 / 32), (3, 1 / 32), (1000, 1 / 32), (1024, 1 / 16), (5000, 1 / 4), (40_000, 2)]
)
def test_scores_are_exact_to_half_a_step(largest, step):
    """So below 1,000 no score is off by more than 1/64; beyond, the step doubles as often as needed."""
    scores = RNG.uniform(-largest, largest, (21, 50, 7)).astype(np.float32)
    scores[3, 2, :3] = largest, -largest, largest  # the differences of neighbours pass the range of 16 bits
    store.save_scores("net", "a", scores)
    found = store.read_scores("net", "a")
    assert (found.dtype, found.shape) == (np.float32, scores.shape)
    assert np.abs(found - scores).max() <= step / 2
    assert store.quantise(scores)[1] == step


def test_scores_and_labels_by_hand():
    """Labels are those of the exact scores, also where the stored ones tie; the first class wins a tie."""
    store.save_scores("net", "a", np.array([[[0.5, -1.0, 2.0, 1.0]], [[0.25, 0.01, 2.0, 1.004]], [[0.5, 3.02, 1, 0]]]))
    assert store.read_scores("net", "a").tolist() == [[[0.5, -1, 2, 1]], [[0.25, 0, 2, 1]], [[0.5, 97 / 32, 1, 0]]]
    labels = store.read_prediction("net", "a")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 2, 0, 1]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(wrong):
    scores = np.zeros((21, 2, 2), np.float32)
    scores[4, 1, 1] = wrong
    with pytest.raises(FloatingPointError, match="the network has diverged"):
        store.save_scores("net", "a", scores)
    assert not store.scores_path("net", "a").exists()
    assert not store.prediction_path("net", "a").exists()


def test_the_same_scores_are_the_same_bytes_an_hour_later(monkeypatch):
    """DVC compares the files' hashes, and ZIP files and PNGs can hold the time at which they were written."""
    scores = RNG.normal(0, 3, (21, 9, 7))
    paths, written = [store.scores_path("net", "a"), store.prediction_path("net", "a")], []
    now = time.time()
    for moment in (now, now + 3600):
        monkeypatch.setattr(zipfile.time, "time", lambda moment=moment: moment)
        store.save_scores("net", "a", scores)
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]


def test_the_label_map_is_written_last(monkeypatch):
    """It says that the image is done."""

    def full(path, content, durable):
        raise OSError("no space left")

    monkeypatch.setattr(store, "write_atomic", full)
    with pytest.raises(OSError, match="no space left"):
        store.save_scores("net", "a", np.zeros((21, 2, 2)))
    assert not store.prediction_path("net", "a").exists()


def test_boundaries_are_exact_to_half_a_grey_level():
    probability = RNG.random((7, 9)).astype(np.float32)
    store.save_boundaries("a", probability)
    assert np.abs(store.read_boundaries("a") - probability).max() <= 0.5 / 255 + 1e-6

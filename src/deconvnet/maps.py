"""What networks leave on disk: raw score maps (float16) and label maps (palette PNGs), a folder for each method;
and the contours of each image (greyscale PNGs).
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from deconvnet import voc
from deconvnet.files import write_whole
from deconvnet.paths import BOUNDARIES, PREDICTIONS, SCORES


def scores_path(model: str, name: str) -> Path:
    return SCORES / model / f"{name}.npz"


def prediction_path(method: str, name: str) -> Path:
    return PREDICTIONS / method / f"{name}.png"


def boundaries_path(name: str) -> Path:
    return BOUNDARIES / f"{name}.png"


class ScoreFile:
    """Writes the raw scores of an image as they come, some classes at a time, and finds the label map on the way."""

    def __init__(self, model: str, name: str):
        self.model, self.name, self.content = model, name, io.BytesIO()
        self.archive, self.done = zipfile.ZipFile(self.content, "w", zipfile.ZIP_DEFLATED), 0
        self.highest = self.labels = None

    def add(self, scores: np.ndarray) -> None:
        """The next classes' (c, H, W)."""
        highest, labels = scores.max(axis=0), scores.argmax(axis=0) + self.done
        if self.done:
            higher = highest > self.highest  # the first one wins a tie
            highest, labels = np.where(higher, highest, self.highest), np.where(higher, labels, self.labels)
        self.highest, self.labels = highest, labels
        with self.archive.open(f"{self.done}.npy", "w") as file:
            np.lib.format.write_array(file, packed(scores))
        self.done += len(scores)

    def close(self) -> None:
        """Now both files are there, the label map last: it says that an image is done."""
        self.archive.close()
        write_whole(scores_path(self.model, self.name), self.content.getvalue(), durable=False)
        voc.save_mask(prediction_path(self.model, self.name), self.labels)


def packed(scores: np.ndarray) -> np.ndarray:
    return scores.astype(np.float16)


def save_scores(model: str, name: str, scores: np.ndarray) -> None:
    """All of an image's (21, H, W) at once."""
    file = ScoreFile(model, name)
    file.add(scores)
    file.close()


def stream_scores(model: str, name: str) -> Iterator[np.ndarray]:
    """float32 (c, H, W), the classes in their order, as many at a time as were written together."""
    with np.load(scores_path(model, name), allow_pickle=False) as stored:
        for part in stored.files:
            yield stored[part].astype(np.float32)


def read_scores(model: str, name: str) -> np.ndarray:
    """float32 (21, H, W)"""
    return np.concatenate(list(stream_scores(model, name)))


def save_prediction(method: str, name: str, scores: np.ndarray) -> None:
    """The label of the highest of (21, H, W) scores or probabilities at each pixel; the first one wins a tie."""
    voc.save_mask(prediction_path(method, name), scores.argmax(axis=0))


def read_prediction(method: str, name: str) -> np.ndarray:
    """uint8 (H, W) in 0–20"""
    with Image.open(prediction_path(method, name)) as mask:
        return np.array(mask)


def save_boundaries(name: str, probability: np.ndarray) -> None:
    """(H, W) in 0–1, kept in 255 steps."""
    content = io.BytesIO()
    Image.fromarray((255 * probability).round().astype(np.uint8)).save(content, format="PNG")
    write_whole(boundaries_path(name), content.getvalue(), durable=False)


def read_boundaries(name: str) -> np.ndarray:
    """float32 (H, W) in 0–1"""
    with Image.open(boundaries_path(name)) as image:
        return np.asarray(image, np.float32) / 255

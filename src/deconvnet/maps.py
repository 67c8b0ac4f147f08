"""What networks leave on disk, a folder for each method: raw score maps in steps of 1/32, label maps as palette PNGs;
and the contours of each image as greyscale PNGs.
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

STEP = 1 / 32  # of a stored score


def scores_path(model: str, name: str) -> Path:
    return SCORES / model / f"{name}.npz"


def prediction_path(method: str, name: str) -> Path:
    return PREDICTIONS / method / f"{name}.png"


def boundaries_path(name: str) -> Path:
    return BOUNDARIES / f"{name}.png"


class ScoreFile:
    """Writes the raw scores of an image as they come, some classes at a time, and finds the label map on the way."""

    def __init__(self, model: str, name: str):
        self.model, self.name, self.content, self.classes = model, name, io.BytesIO(), 0
        self.archive = zipfile.ZipFile(self.content, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self.highest = self.labels = None

    def add(self, scores: np.ndarray) -> None:
        """The next classes' float (c, H, W). Raises FloatingPointError if one is not finite."""
        scores = np.ascontiguousarray(scores)
        highest, labels = scores.max(axis=0), scores.argmax(axis=0) + self.classes
        if self.classes:
            higher = highest > self.highest  # the first one wins a tie
            highest, labels = np.where(higher, highest, self.highest), np.where(higher, labels, self.labels)
        self.highest, self.labels = highest, labels
        for part, array in zip(("steps", "step"), packed(scores), strict=True):
            with self.archive.open(f"{self.classes:02d}_{part}.npy", "w") as file:
                np.lib.format.write_array(file, array)
        self.classes += len(scores)

    def close(self) -> None:
        """Now both files are there, the label map last: it says that an image is done."""
        self.archive.close()
        write_whole(scores_path(self.model, self.name), self.content.getvalue(), durable=False)
        voc.save_mask(prediction_path(self.model, self.name), self.labels)


def packed(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float (c, H, W) as whole steps of 1/32, each less its left neighbour, which is what compresses; and the step.

    No score is off by more than 1/64; a float16 of 64 and more is. Where scores pass 1,000 the step doubles.
    """
    largest = float(np.abs(scores).max(initial=0))
    if not np.isfinite(largest):
        raise FloatingPointError("A score is not finite: the network has diverged.")
    step = STEP * 2.0 ** max(np.ceil(np.log2(max(largest / (32767 * STEP), 1e-9))), 0)
    steps = np.rint(scores / step).astype(np.int16).view(np.uint16)
    steps[..., 1:] -= steps[..., :-1].copy()  # modulo 2^16
    return steps, np.float32(step)


def unpacked(steps: np.ndarray, step: np.ndarray) -> np.ndarray:
    """float32 (c, H, W) of `packed`."""
    return np.cumsum(steps, axis=-1, dtype=np.uint16).view(np.int16) * np.float32(step)


def save_scores(model: str, name: str, scores: np.ndarray) -> None:
    """All of an image's (21, H, W) at once, and its label map."""
    file = ScoreFile(model, name)
    file.add(scores)
    file.close()


def stream_scores(model: str, name: str) -> Iterator[np.ndarray]:
    """float32 (c, H, W), the classes in their order, as many at a time as were written together."""
    with np.load(scores_path(model, name), allow_pickle=False) as stored:
        for steps, step in zip(stored.files[::2], stored.files[1::2], strict=True):
            yield unpacked(stored[steps], stored[step])


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

"""What networks leave on disk: raw score maps (float16) and label maps (palette PNGs), a folder for each method;
and the contours of each image (greyscale PNGs).
"""

import numpy as np
from PIL import Image

from deconvnet import voc
from deconvnet.paths import BOUNDARIES, PREDICTIONS, SCORES


def save_scores(model: str, name: str, scores: np.ndarray) -> None:
    """(21, H, W) raw scores, kept as float16."""
    path = SCORES / model / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, scores=scores.astype(np.float16))


def read_scores(model: str, name: str) -> np.ndarray:
    """float32 (21, H, W)"""
    with np.load(SCORES / model / f"{name}.npz", allow_pickle=False) as stored:
        return stored["scores"].astype(np.float32)


def save_prediction(method: str, name: str, scores: np.ndarray) -> None:
    """The label of the highest of (21, H, W) scores or probabilities at each pixel; the first one wins a tie."""
    path = PREDICTIONS / method / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    voc.save_mask(path, scores.argmax(axis=0))


def read_prediction(method: str, name: str) -> np.ndarray:
    """uint8 (H, W) in 0–20"""
    with Image.open(PREDICTIONS / method / f"{name}.png") as mask:
        return np.array(mask)


def save_boundaries(name: str, probability: np.ndarray) -> None:
    """(H, W) in 0–1, kept in 255 steps."""
    BOUNDARIES.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 * probability).round().astype(np.uint8)).save(BOUNDARIES / f"{name}.png")


def read_boundaries(name: str) -> np.ndarray:
    """float32 (H, W) in 0–1"""
    with Image.open(BOUNDARIES / f"{name}.png") as image:
        return np.asarray(image, np.float32) / 255

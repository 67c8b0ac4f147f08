"""What networks leave on disk: raw score maps (float16) and label maps (palette PNGs), a folder for each method;
and the contours of each image (greyscale PNGs).
"""

import io
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


def save_scores(model: str, name: str, scores: np.ndarray) -> None:
    """(21, H, W) raw scores, kept as float16."""
    content = io.BytesIO()
    np.savez_compressed(content, scores=scores.astype(np.float16))
    write_whole(scores_path(model, name), content.getvalue())


def read_scores(model: str, name: str) -> np.ndarray:
    """float32 (21, H, W)"""
    with np.load(scores_path(model, name), allow_pickle=False) as stored:
        return stored["scores"].astype(np.float32)


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
    write_whole(boundaries_path(name), content.getvalue())


def read_boundaries(name: str) -> np.ndarray:
    """float32 (H, W) in 0–1"""
    with Image.open(boundaries_path(name)) as image:
        return np.asarray(image, np.float32) / 255

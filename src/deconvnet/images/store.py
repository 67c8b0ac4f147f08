"""What stages leave on disk for each image: raw score maps, label maps (palette PNGs), boundary maps (greyscale PNGs);
and the proposals of a split.
"""

import io
import zipfile

import numpy as np
from PIL import Image

from deconvnet.config.paths import BOUNDARIES, PREDICTIONS, PROPOSALS, SCORES
from deconvnet.data import voc
from deconvnet.utils.files import write_atomic

STEP_EXPONENT = -5  # scores are stored in steps of 1/32


def scores_path(model: str, name: str):
    return SCORES / model / f"{name}.npz"


def prediction_path(method: str, name: str):
    return PREDICTIONS / method / f"{name}.png"


def boundaries_path(name: str):
    return BOUNDARIES / f"{name}.png"


def quantise(scores: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """float (C, H, W) → int16 steps and the size of a step: 1/32, larger only where scores pass 1,000.

    No score is off by more than 1/64. As float16 the files of the default's DeconvNet would be 1.9 times as large, of a
    500×375 photograph 3.2 times (measured). Raises FloatingPointError if a score is not finite.
    """
    largest = float(np.abs(scores).max(initial=0))
    if not np.isfinite(largest):
        raise FloatingPointError("A score is not finite: the network has diverged.")
    step = 2.0 ** max(np.ceil(np.log2(max(largest, 1) / 32767)), STEP_EXPONENT)
    return np.rint(scores / step).astype(np.int16), np.float32(step)


def save_scores(model: str, name: str, scores: np.ndarray) -> None:
    """Writes an image's raw scores, float (21, H, W), and its label map, which is written last: the image is done."""
    steps, step = quantise(scores)
    content = io.BytesIO()
    np.savez_compressed(content, differences=np.diff(steps, axis=-1, prepend=np.int16(0)), step=step)  # modulo 2^16
    write_atomic(scores_path(model, name), content.getvalue(), durable=False)
    save_prediction(model, name, scores)


def read_scores(model: str, name: str) -> np.ndarray:
    """float32 (21, H, W)"""
    with np.load(scores_path(model, name), allow_pickle=False) as stored:
        return np.cumsum(stored["differences"], axis=-1, dtype=np.int16) * stored["step"]


def save_prediction(method: str, name: str, scores: np.ndarray) -> None:
    """Writes the class with the highest of (21, H, W) scores or probabilities at each pixel; the first wins a tie."""
    voc.save_mask(prediction_path(method, name), scores.argmax(axis=0))


def read_prediction(method: str, name: str) -> np.ndarray:
    """uint8 (H, W) in 0–20"""
    with Image.open(prediction_path(method, name)) as mask:
        return np.array(mask)


def save_boundaries(name: str, probability: np.ndarray) -> None:
    """Writes a boundary map, (H, W) in 0–1, in 255 steps."""
    content = io.BytesIO()
    Image.fromarray((255 * probability).round().astype(np.uint8)).save(content, format="PNG")
    write_atomic(boundaries_path(name), content.getvalue(), durable=False)


def read_boundaries(name: str) -> np.ndarray:
    """float32 (H, W) in 0–1"""
    with Image.open(boundaries_path(name)) as image:
        return np.asarray(image, np.float32) / 255


def save_proposals(proposals: dict[str, np.ndarray], split: str) -> None:
    """Writes {image: (N, 5) x1, y1, x2, y2, objectness}."""
    PROPOSALS.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(PROPOSALS / f"{split}.npz", "w") as archive:  # np.savez's bytes; it refuses the id "file"
        for name, boxes in proposals.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, boxes, allow_pickle=False)


def load_proposals(split: str) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(PROPOSALS / f"{split}.npz") as archive:  # np.load takes the id "a.npy" for "a"
        return {
            name.removesuffix(".npy"): np.lib.format.read_array(archive.open(name), allow_pickle=False)
            for name in archive.namelist()
        }

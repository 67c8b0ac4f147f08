"""Calibration: whether pixels of probability p are right in a share p of cases. The CRF uses the probabilities as they
are.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from deconvnet.config.paths import VOC
from deconvnet.data import voc
from deconvnet.data.voc import VOID
from deconvnet.evaluation.metrics import MIN_IMAGES_PER_WORKER
from deconvnet.inference import ensemble
from deconvnet.utils import parallel


def confidence_counts(probabilities: np.ndarray, ground_truth: np.ndarray, bins: int = 10) -> np.ndarray:
    """Of (21, H, W) probabilities and (H, W) labels: non-void pixels by the probability of the class they get.

    (3, bins): in each of `bins` equal intervals of 0–1 the pixels, the sum of their probabilities, and those right.
    """
    valid = ground_truth != VOID
    highest, label = probabilities.max(axis=0)[valid], probabilities.argmax(axis=0)[valid]
    at = np.minimum((highest * bins).astype(int), bins - 1)
    return np.stack([np.bincount(at, weights, bins) for weights in (None, highest, label == ground_truth[valid])])


def table(counts: Iterable[np.ndarray]) -> pd.DataFrame:
    """From `confidence_counts` of all images: pixels, confidence (mean probability) and accuracy of each interval, NaN
    where there are none.
    """
    pixels, confidence, right = sum(counts)
    found = pd.DataFrame({"pixels": pixels.astype(int), "confidence": confidence, "accuracy": right})
    found[["confidence", "accuracy"]] = found[["confidence", "accuracy"]].div(pixels, axis=0)
    return found


def reliability(pairs: Iterable[tuple[np.ndarray, np.ndarray]], bins: int = 10) -> pd.DataFrame:
    """The table of (probabilities (21, H, W), ground truth (H, W)) pairs."""
    return table(confidence_counts(*pair, bins) for pair in pairs)


def of_method(method: str, names: list[str], rule: str) -> pd.DataFrame:
    """The reliability of a network, or of the ensemble (edeconvnet) under `rule`, over a list of images."""

    def task(name: str) -> np.ndarray:
        return confidence_counts(ensemble.method_probabilities(method, name, rule), voc.read_labels(VOC, name))

    desc = f"calibration of {method}"
    return table(parallel.process_map(task, names, desc, min_items_per_worker=MIN_IMAGES_PER_WORKER))


def calibration_error(table: pd.DataFrame) -> float:
    """The mean distance of confidence and accuracy over all pixels (expected calibration error); NaN without pixels."""
    gap = (table["confidence"] - table["accuracy"]).abs().fillna(0)
    return float((gap * table["pixels"]).sum()) / (table["pixels"].sum() or float("nan"))

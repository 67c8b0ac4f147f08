"""Whether a probability means what it says: the CRF takes the networks' scores for probabilities."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from deconvnet import ensemble, voc
from deconvnet.paths import VOC
from deconvnet.voc import VOID


def reliability(pairs: Iterable[tuple[np.ndarray, np.ndarray]], bins: int = 10) -> pd.DataFrame:
    """Of (probabilities (21, H, W), truth (H, W)) pairs: non-void pixels by the probability of the class they get.

    Rows are `bins` equal intervals of 0–1: pixels, confidence (mean probability) and accuracy, NaN where there are
    none.
    """
    pixels, confidence, right = np.zeros(bins), np.zeros(bins), np.zeros(bins)
    for probabilities, truth in pairs:
        valid = truth != VOID
        highest, label = probabilities.max(axis=0)[valid], probabilities.argmax(axis=0)[valid]
        at = np.minimum((highest * bins).astype(int), bins - 1)
        pixels += np.bincount(at, minlength=bins)
        confidence += np.bincount(at, weights=highest, minlength=bins)
        right += np.bincount(at, weights=label == truth[valid], minlength=bins)
    table = pd.DataFrame({"pixels": pixels.astype(int), "confidence": confidence, "accuracy": right})
    table[["confidence", "accuracy"]] = table[["confidence", "accuracy"]].div(pixels, axis=0)
    return table


def of_method(method: str, names: list[str], rule: str) -> pd.DataFrame:
    """The reliability of a network, or of the ensemble (edeconvnet) under `rule`, over a list of images."""
    return reliability((ensemble.of_method(method, name, rule), voc.read_labels(VOC, name)) for name in names)


def calibration_error(table: pd.DataFrame) -> float:
    """The mean distance of confidence and accuracy over all pixels (expected calibration error); NaN without pixels."""
    gap = (table["confidence"] - table["accuracy"]).abs().fillna(0)
    return float((gap * table["pixels"]).sum()) / (table["pixels"].sum() or float("nan"))

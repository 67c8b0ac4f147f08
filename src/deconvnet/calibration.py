"""Whether a probability means what it says: the CRF takes the networks' scores for probabilities."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from deconvnet import ensemble, parallel, voc
from deconvnet.metrics import PER_CORE
from deconvnet.paths import VOC
from deconvnet.voc import VOID


def counted(probabilities: np.ndarray, truth: np.ndarray, bins: int = 10) -> np.ndarray:
    """Of (21, H, W) probabilities and (H, W) labels: non-void pixels by the probability of the class they get.

    (3, bins): in each of `bins` equal intervals of 0–1 the pixels, the sum of their probabilities, and those right.
    """
    valid = truth != VOID
    highest, label = probabilities.max(axis=0)[valid], probabilities.argmax(axis=0)[valid]
    at = np.minimum((highest * bins).astype(int), bins - 1)
    return np.stack([np.bincount(at, weights, bins) for weights in (None, highest, label == truth[valid])])


def table(counts: Iterable[np.ndarray]) -> pd.DataFrame:
    """Of the sum of what `counted` gives: pixels, confidence (mean probability) and accuracy of each interval, NaN
    where there are none.
    """
    pixels, confidence, right = sum(counts)
    found = pd.DataFrame({"pixels": pixels.astype(int), "confidence": confidence, "accuracy": right})
    found[["confidence", "accuracy"]] = found[["confidence", "accuracy"]].div(pixels, axis=0)
    return found


def reliability(pairs: Iterable[tuple[np.ndarray, np.ndarray]], bins: int = 10) -> pd.DataFrame:
    """The table of (probabilities (21, H, W), truth (H, W)) pairs."""
    return table(counted(*pair, bins) for pair in pairs)


def of_method(method: str, names: list[str], rule: str) -> pd.DataFrame:
    """The reliability of a network, or of the ensemble (edeconvnet) under `rule`, over a list of images."""

    def one(name: str) -> np.ndarray:
        return counted(ensemble.of_method(method, name, rule), voc.read_labels(VOC, name))

    return table(parallel.over(one, names, f"calibration of {method}", least=PER_CORE))


def calibration_error(table: pd.DataFrame) -> float:
    """The mean distance of confidence and accuracy over all pixels (expected calibration error); NaN without pixels."""
    gap = (table["confidence"] - table["accuracy"]).abs().fillna(0)
    return float((gap * table["pixels"]).sum()) / (table["pixels"].sum() or float("nan"))

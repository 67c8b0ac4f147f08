"""EDeconvNet: DeconvNet and FCN-8s together (section 6)."""

import numpy as np
from scipy.special import softmax

from deconvnet import maps, parallel


def probabilities(scores: np.ndarray) -> np.ndarray:
    """(21, H, W) raw scores → class probabilities of each pixel."""
    return softmax(scores, axis=0)


def combine(deconvnet: np.ndarray, fcn8s: np.ndarray, rule: str) -> np.ndarray:
    """The ensemble's class probabilities (21, H, W) from both networks' raw scores.

    mean: of the two probability maps, as the paper says. product: softmax of DeconvNet's aggregated score times
    max(0, FCN-8s's score), as the release does.
    """
    if rule == "mean":
        return (probabilities(deconvnet) + probabilities(fcn8s)) / 2
    if rule == "product":
        return probabilities(deconvnet * np.maximum(fcn8s, 0))
    raise ValueError(f"The ensemble's rule is mean or product, not {rule}.")


def of_method(method: str, name: str, rule: str) -> np.ndarray:
    """The class probabilities of an image by one network, or by the ensemble (edeconvnet) under `rule`."""
    if method == "edeconvnet":
        return combine(maps.read_scores("deconvnet", name), maps.read_scores("fcn8s", name), rule)
    return probabilities(maps.read_scores(method, name))


def predict_all(method: str, names: list[str], rule: str) -> None:
    """The ensemble's label maps, kept as `method`; made over all cores or a cluster."""

    def one(name: str) -> None:
        maps.save_prediction(method, name, of_method("edeconvnet", name, rule))

    for _ in parallel.over(one, names, f"{rule} ensemble"):
        pass

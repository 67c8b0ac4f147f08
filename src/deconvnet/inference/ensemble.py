"""EDeconvNet: DeconvNet and FCN-8s together (section 5.2)."""

import numpy as np
from scipy.special import softmax

from deconvnet.images import store
from deconvnet.utils import parallel


def probabilities(scores: np.ndarray) -> np.ndarray:
    """(21, H, W) raw scores → class probabilities of each pixel."""
    return softmax(scores, axis=0)


def combine(deconvnet: np.ndarray, fcn8s: np.ndarray, rule: str) -> np.ndarray:
    """The ensemble's class probabilities (21, H, W) from both networks' raw scores.

    mean: of the two probability maps, as in the paper. product: softmax of DeconvNet's aggregated score times
    max(0, FCN-8s's score), as in the release. Raises ValueError for another rule.
    """
    if rule == "mean":
        return (probabilities(deconvnet) + probabilities(fcn8s)) / 2
    if rule == "product":
        return probabilities(deconvnet * np.maximum(fcn8s, 0))
    raise ValueError(f"The ensemble's rule is mean or product, not {rule}.")


def method_probabilities(method: str, name: str, rule: str) -> np.ndarray:
    """The class probabilities of an image by one network, or by the ensemble (edeconvnet) under `rule`."""
    if method == "edeconvnet":
        return combine(store.read_scores("deconvnet", name), store.read_scores("fcn8s", name), rule)
    return probabilities(store.read_scores(method, name))


def predict_all(method: str, names: list[str], rule: str) -> None:
    """Writes the ensemble's label maps as `method`, on all cores or a cluster."""

    def task(name: str) -> None:
        store.save_prediction(method, name, method_probabilities("edeconvnet", name, rule))

    for _ in parallel.process_map(task, names, f"{rule} ensemble"):
        pass

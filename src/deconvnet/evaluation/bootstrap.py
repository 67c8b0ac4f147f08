"""Bootstrap intervals over the images of val (and over seeds), and the measures that they are made for.

A measure takes a run's counts and the weights of R resamples, and gives one value for each resample.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from deconvnet.evaluation import per_image
from deconvnet.evaluation.per_image import PerImageCounts

Weights = np.ndarray  # (R, images) whole numbers: how often each image is in each of R resamples


def resample(items: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples, items): how often each item occurs when as many are sampled as there are, with replacement."""
    return rng.multinomial(items, np.full(items, 1 / items), size=resamples)


@lru_cache(maxsize=4)
def resample_weights(images: int, runs: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights of images, (resamples, images), and of runs, (resamples, runs): the same for all effects."""
    rng = np.random.default_rng(seed)
    return resample(images, resamples, rng), resample(runs, resamples, rng)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of bootstrap values."""
    low, high = np.nanpercentile(values, [2.5, 97.5]) if np.isfinite(values).any() else (np.nan, np.nan)
    return float(low), float(high)


def iou(key: str) -> Callable:
    """Mean IoU, in points, of the counts at `key`."""

    def measure(run: PerImageCounts, weights: Weights) -> np.ndarray:
        counts = run[key].astype(float)
        return 100 * per_image.mean_iou((weights @ counts.reshape(len(counts), -1)).reshape(-1, *counts.shape[1:]))

    return measure


def slope(prefix: str) -> Callable:
    """Points of mean IoU for each doubling of the number of proposals: the slope of a line through all counts."""

    def measure(run: PerImageCounts, weights: Weights) -> np.ndarray:
        counts = sorted(int(key.removeprefix(prefix)) for key in run if key.startswith(prefix))
        x = np.log2(counts) - np.mean(np.log2(counts))
        return sum(xi * iou(f"{prefix}{n}")(run, weights) for xi, n in zip(x, counts, strict=True)) / (x**2).sum()

    return measure


def object_mean(run: PerImageCounts, weights: Weights, values: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The mean of a value of objects, each weighted by its image: (R,)."""
    total, objects = (np.bincount(images, w, weights.shape[1]) for w in (values, None))
    with np.errstate(invalid="ignore"):  # NaN where a resample has no object
        return (weights @ total) / (weights @ objects)


def object_measure(what: str, method: str, low: float, high: float) -> Callable:
    """Mean pixel recall or IoU (`what`), in points, of the objects between two sizes."""

    def measure(run: PerImageCounts, weights: Weights) -> np.ndarray:
        size = run["objects/size"]
        inside = (size >= low) & (size < high)
        values = 100 * run[f"objects/{what}/{method}"][inside].astype(float)
        return object_mean(run, weights, values, run["objects/image"][inside])

    return measure


def energy(source: str, layer: int) -> Callable:
    """The share, in %, of a layer's energy on the target; layer 0 is chance, -1 the last layer."""

    def measure(run: PerImageCounts, weights: Weights) -> np.ndarray:
        return 100 * object_mean(
            run, weights, run[f"{source}/energy"][:, layer].astype(float), run[f"{source}/energy_image"]
        )

    return measure


def minus(first: Callable, *others: Callable) -> Callable:
    """The first less the largest of the others."""
    return lambda run, weights: first(run, weights) - np.max([other(run, weights) for other in others], axis=0)


def bootstrap(
    effect: Callable, runs: list[PerImageCounts], images: int, resamples: int, seed: int
) -> tuple[float, tuple]:
    """The mean effect over runs (seeds), and its interval; the resamples of images are the same for all runs."""
    (weights, run_weights), all_images = resample_weights(images, len(runs), resamples, seed), np.ones((1, images), int)
    effects = np.stack([effect(run, weights) for run in runs])  # (runs, resamples)
    values = (effects * run_weights.T).sum(axis=0) / len(runs)
    return float(np.mean([effect(run, all_images)[0] for run in runs])), interval(values)

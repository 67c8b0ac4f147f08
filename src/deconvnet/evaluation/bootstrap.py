"""Estimates over trainings and images: a mean, its 95 % interval, its p-value, and the value of each training.

A measure takes a run's counts and the weights of R resamples of val's images, and gives one value for each resample.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from deconvnet.evaluation.per_image import PerImageCounts

Weights = np.ndarray  # (R, images) whole numbers: how often each image is in each of R resamples
Measure = Callable[[PerImageCounts, Weights], np.ndarray]  # (R,)


@dataclass(frozen=True)
class Estimate:
    value: float  # the mean over trainings; NaN if there was nothing to measure
    ci: tuple[float, float]  # 95 %
    p: float  # two-sided, of the hypothesis that the value is 0
    per_seed: tuple[float, ...]  # one for each training, on all images


@lru_cache(maxsize=4)
def draws(images: int, runs: int, resamples: int, seed: int) -> tuple[Weights, np.ndarray]:
    """The weights of images, (resamples, images), and Student's t for `runs` trainings, (resamples,): the same for all
    measures, so that comparisons are paired.
    """
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    return weights, rng.standard_t(runs - 1, resamples) if runs > 1 else np.zeros(resamples)


def estimate(measure: Measure, runs: list[PerImageCounts], images: int, resamples: int, seed: int) -> Estimate:
    """Of the mean over runs, which are trainings with different seeds. The interval has two parts: the images are
    resampled, the same for all runs; and to each resample's mean is added the standard error over n seeds,
    s / √n, times a draw of Student's t with n - 1 degrees of freedom. (To resample four seeds themselves would give
    intervals that are too narrow.) With one run it is about images alone.
    """
    weights, t = draws(images, len(runs), resamples, seed)
    per_seed = np.array([measure(run, np.ones((1, images), int))[0] for run in runs], float)
    values = np.mean([measure(run, weights) for run in runs], axis=0)
    if len(runs) > 1:
        values = values + t * per_seed.std(ddof=1) / math.sqrt(len(runs))
    value = float(per_seed.mean())
    values = values[np.isfinite(values)]  # a resample may have no object
    if not len(values) or not math.isfinite(value):
        return Estimate(math.nan, (math.nan, math.nan), math.nan, tuple(per_seed.tolist()))
    low, high = np.percentile(values, [2.5, 97.5])
    rarer = min((values <= 0).sum(), (values >= 0).sum())
    p = min(1.0, 2 * (1 + int(rarer)) / (1 + len(values)))
    return Estimate(value, (float(low), float(high)), p, tuple(per_seed.tolist()))


def holm(p: dict[str, float]) -> dict[str, float]:
    """p-values of several hypotheses, adjusted by Holm's method: at most 5 % of such families have a false finding."""
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = largest
    return adjusted

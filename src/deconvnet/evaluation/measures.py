"""What is measured of a run's counts, for bootstrap.estimate: all in points of 100, one value for each resample.

A method's name may begin with where its counts are from: "ablated/deconvnet" is the ablated network beside the run's
own, "next/fcn8s" that of the next training.
"""

import numpy as np
from scipy import stats

from deconvnet.evaluation import per_image
from deconvnet.evaluation.bootstrap import Measure, Weights
from deconvnet.evaluation.per_image import PerImageCounts

BESIDE = ("ablated", "next")
SPLIT = 0.2  # an object is split if at least this share of it has its class, and at least this share another object's


def key(kind: str, method: str) -> str:
    """The name of counts: ("counts", "fcn8s") → counts/fcn8s, ("counts", "next/fcn8s") → next/counts/fcn8s."""
    where, _, name = method.rpartition("/")
    return f"{where}/{kind}/{name}" if where in BESIDE else f"{kind}/{method}"


def iou(method: str, kind: str = "counts") -> Measure:
    """Mean IoU of a method, over whole images (counts) or near boundaries (boundary)."""

    def measure(run: PerImageCounts, weights: Weights) -> np.ndarray:
        counts = run[key(kind, method)].astype(float)
        return 100 * per_image.mean_iou((weights @ counts.reshape(len(counts), -1)).reshape(-1, *counts.shape[1:]))

    return measure


def class_iou(method: str, label: int) -> Measure:
    """IoU of one class, NaN where neither the ground truth nor the method has it."""

    def measure(run: PerImageCounts, weights: Weights) -> np.ndarray:
        hits, ground_truth, predicted = (weights @ run[key("counts", method)][:, :, label].astype(float)).T
        with np.errstate(invalid="ignore"):
            return 100 * hits / (ground_truth + predicted - hits)

    return measure


def object_mean(run: PerImageCounts, weights: Weights, values: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The mean of a value of objects, each weighted by its image; objects without a value (NaN) are left out."""
    known = np.isfinite(values)
    values, images = values[known], images[known]
    total, objects = (np.bincount(images, w, weights.shape[1]) for w in (values, None))
    with np.errstate(invalid="ignore"):  # NaN where a resample has no object
        return (weights @ total) / (weights @ objects)


def objects(what: str, method: str, low: float = 0, high: float = np.inf) -> Measure:
    """The mean of a count of per_image.object_counts (recall, iou, other, contour) over objects between two sizes; or
    the share of them that are split.
    """

    def measure(run: PerImageCounts, weights: Weights) -> np.ndarray:
        def of(count: str) -> np.ndarray:
            return run[key(f"objects/{count}", method)].astype(float)

        values = (of("recall") >= SPLIT) & (of("other") >= SPLIT) if what == "split" else of(what)
        inside = (run["objects/size"] >= low) & (run["objects/size"] < high)
        return object_mean(run, weights, 100.0 * values[inside], run["objects/image"][inside])

    return measure


def contour_difference(first: str, second: str) -> Measure:
    """IoU of an object near its boundaries by one method less that by another, over the objects that both call right:
    most of whose pixels have the object's class. So it is apart from what the methods recognise.
    """

    def measure(run: PerImageCounts, weights: Weights) -> np.ndarray:
        right = np.all([run[key("objects/majority", m)] == run["objects/label"] for m in (first, second)], axis=0)
        values = run[key("objects/contour", first)] - run[key("objects/contour", second)]
        return object_mean(run, weights, 100.0 * values[right], run["objects/image"][right])

    return measure


def energy(method: str, layer: int, kind: str = "energy") -> Measure:
    """The share of a decoder layer's energy on the target: as it is (energy), of a map that is the same for every
    object (energy_blind), or what the first has more than the second (excess).
    """

    def measure(run: PerImageCounts, weights: Weights) -> np.ndarray:
        values = excess(run, method) if kind == "excess" else run[key(kind, method)].astype(float)
        return object_mean(run, weights, 100 * values[:, layer], run[key("energy_image", method)])

    return measure


def excess(run: PerImageCounts, method: str) -> np.ndarray:
    """(objects, layers): the share of energy on the target less that of a map which is the same for every object."""
    return run[key("energy", method)].astype(float) - run[key("energy_blind", method)]


def deconvolution_gain(method: str) -> Measure:
    """By how much a block's deconvolutions raise the excess over that of the unpooled map they start from: the mean
    over the decoder's blocks.
    """

    def measure(run: PerImageCounts, weights: Weights) -> np.ndarray:
        found = excess(run, method)  # unpool, deconv, unpool, deconv, …
        gain = (found[:, 1::2] - found[:, 0::2]).mean(axis=1)
        return object_mean(run, weights, 100 * gain, run[key("energy_image", method)])

    return measure


def rank_correlation(method: str, layer: int) -> Measure:
    """Spearman's correlation, times 100, of the excess in a layer with the IoU of the crop's own label map, over
    objects.
    """

    def measure(run: PerImageCounts, weights: Weights) -> np.ndarray:
        pair = np.stack([excess(run, method)[:, layer], run[key("energy_iou", method)]])
        known = np.isfinite(pair).all(axis=0)
        images = run[key("energy_image", method)][known]
        if len(images) < 3:
            return np.full(len(weights), np.nan)
        x, y = stats.rankdata(pair[:, known], axis=1)
        x, y = x - x.mean(), y - y.mean()
        sums = [
            weights @ np.bincount(images, v, weights.shape[1]) for v in (np.ones(len(x)), x, y, x * y, x * x, y * y)
        ]
        n, sx, sy, sxy, sxx, syy = sums
        with np.errstate(invalid="ignore", divide="ignore"):
            return 100 * (n * sxy - sx * sy) / np.sqrt((n * sxx - sx**2) * (n * syy - sy**2))

    return measure


def minus(first: Measure, *others: Measure) -> Measure:
    """The first less the largest of the others."""
    return lambda run, weights: first(run, weights) - np.max([other(run, weights) for other in others], axis=0)

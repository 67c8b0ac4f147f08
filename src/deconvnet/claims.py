"""The claims of the paper and what this run says of each: an effect, a 95 % interval, and a verdict by one rule.

Every effect is written so that the claim says it is above 0. The interval is that of a bootstrap over the images of
val, the same ones drawn for both sides of a comparison; with more than one seed of training, over seeds and images. An
ablation was trained once: each of the runs is compared with it, and the interval holds over the seeds of their side.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from deconvnet import samples, tables
from deconvnet.params import Params
from deconvnet.paths import REPORTS, SAMPLES
from deconvnet.provenance import experiment_id
from deconvnet.samples import Samples

Weights = np.ndarray  # (R, images) whole numbers: how often each image is drawn in each of R resamples
ABLATED = {  # DeconvNet …
    "one_stage": "in one stage", "no_batch_norm": "without batch norm, decoder drawn with std 0.01",
    "no_batch_norm_he": "without batch norm, decoder drawn as He et al.", "bilinear": "with bilinear upsampling",
}  # fmt: skip
BACKGROUND_ONLY = 99.9  # % of the pixels: what gives so many to background is said to predict nothing else


def resample(items: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples, items): how often each item is drawn when as many are drawn as there are, with replacement."""
    return rng.multinomial(items, np.full(items, 1 / items), size=resamples)


@lru_cache(maxsize=4)
def draws(images: int, runs: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each image, (resamples, images), and each run, (resamples, runs), is drawn: alike for all effects."""
    rng = np.random.default_rng(seed)
    return resample(images, resamples, rng), resample(runs, resamples, rng)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of bootstrap values."""
    low, high = np.nanpercentile(values, [2.5, 97.5]) if np.isfinite(values).any() else (np.nan, np.nan)
    return float(low), float(high)


def verdict(low: float, high: float) -> str:
    """The rule: on which side of 0 the whole interval lies. It was committed before the first ledger."""
    if low > 0:
        return "replicated"
    return "not replicated" if high < 0 else "inconclusive"


# What is measured. Each takes a run's samples and weights, and gives one value for each resample.


def iou(key: str) -> Callable:
    """Mean IoU, in points, of the tally at `key`."""

    def measure(run: Samples, weights: Weights) -> np.ndarray:
        tally = run[key].astype(float)
        return 100 * samples.mean_iou((weights @ tally.reshape(len(tally), -1)).reshape(-1, *tally.shape[1:]))

    return measure


def slope(prefix: str) -> Callable:
    """Points of mean IoU for each doubling of the number of windows: the line through all counts."""

    def measure(run: Samples, weights: Weights) -> np.ndarray:
        counts = sorted(int(key.removeprefix(prefix)) for key in run if key.startswith(prefix))
        x = np.log2(counts) - np.mean(np.log2(counts))
        return sum(xi * iou(f"{prefix}{n}")(run, weights) for xi, n in zip(x, counts, strict=True)) / (x**2).sum()

    return measure


def object_mean(run: Samples, weights: Weights, values: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The mean of a value of objects, each as often as its image is drawn: (R,)."""
    total, objects = (np.bincount(images, w, weights.shape[1]) for w in (values, None))
    with np.errstate(invalid="ignore"):  # NaN where no object is drawn
        return (weights @ total) / (weights @ objects)


def of_sizes(what: str, method: str, low: float, high: float) -> Callable:
    """Pixel recall or IoU, as `what` says, in points, of the objects between two sizes."""

    def measure(run: Samples, weights: Weights) -> np.ndarray:
        size = run["objects/size"]
        inside = (size >= low) & (size < high)
        values = 100 * run[f"objects/{what}/{method}"][inside].astype(float)
        return object_mean(run, weights, values, run["objects/image"][inside])

    return measure


def energy(source: str, layer: int) -> Callable:
    """The share, in %, of a layer's energy that lies on the target; 0 is chance, -1 the last layer."""

    def measure(run: Samples, weights: Weights) -> np.ndarray:
        return 100 * object_mean(
            run, weights, run[f"{source}/energy"][:, layer].astype(float), run[f"{source}/energy_image"]
        )

    return measure


def minus(first: Callable, *others: Callable) -> Callable:
    """The first less the largest of the others."""
    return lambda run, weights: first(run, weights) - np.max([other(run, weights) for other in others], axis=0)


@dataclass(frozen=True)
class Claim:
    id: str
    statement: str
    paper: str  # its evidence
    published: float | None  # its effect, in the same unit
    measured: str  # what our effect is
    unit: str
    effect: Callable
    needs: tuple[str, ...] = ()  # the ablations it can be measured against; the strongest is, as "ablated"


def all_claims(small: float, large: float) -> list[Claim]:
    """C1 to C8; `small` and `large` bound the sizes of C5, as in reports/metrics.json."""
    mean = tables.published()["mean"]
    f, d, dc, e, ec = (mean[title] for title in tables.METHODS.values())
    deconvnet, fcn, ensemble = iou("tally/deconvnet"), iou("tally/fcn8s"), iou("tally/edeconvnet")
    points = "points of mean IoU"
    focus, start, chance = energy("deconvnet", -1), energy("deconvnet", 2), energy("deconvnet", 0)
    return [
        Claim("C1", "DeconvNet beats FCN-8s", f"{d} vs {f} mean IoU", d - f,
              "DeconvNet − FCN-8s", points, minus(deconvnet, fcn)),
        Claim("C2", "the ensemble beats both members", f"{e} vs {d} and {f}", e - max(d, f),
              "EDeconvNet − the better member", points, minus(ensemble, deconvnet, fcn)),
        Claim("C3a", "the CRF adds about one point", f"{dc} vs {d}", dc - d,
              "DeconvNet+CRF − DeconvNet", points, minus(iou("tally/deconvnet_crf"), deconvnet)),
        Claim("C3b", "the CRF adds about one point", f"{ec} vs {e}", ec - e,
              "EDeconvNet+CRF − EDeconvNet", points, minus(iou("tally/edeconvnet_crf"), ensemble)),
        Claim("C4a", "more proposals, finer and better", "figure 6", None,
              "for each doubling of the proposals, best first", points, slope("windows/best/")),
        Claim("C4b", "more proposals, finer and better", "figure 6", None,
              "for each doubling of the proposals, largest first", points, slope("windows/largest/")),
        Claim("C5a", "FCN misses small objects, DeconvNet does not", "figure 1", None,
              f"small objects (side < {small:g}), DeconvNet − FCN-8s", "points of pixel recall",
              minus(of_sizes("recall", "deconvnet", 0, small), of_sizes("recall", "fcn8s", 0, small))),
        Claim("C5b", "FCN breaks large objects, DeconvNet does not", "figure 1", None,
              f"large objects (side ≥ {large:g}), DeconvNet − FCN-8s", "points of pixel recall",
              minus(of_sizes("recall", "deconvnet", large, np.inf), of_sizes("recall", "fcn8s", large, np.inf))),
        Claim("C6", "two-stage training is needed", "text", None, "two stages − one, same updates", points,
              minus(deconvnet, iou("ablated/tally")), ("one_stage",)),
        Claim("C7", "batch normalisation is critical", "text", None, "with − without batch norm", points,
              minus(deconvnet, iou("ablated/tally")), ("no_batch_norm", "no_batch_norm_he")),
        Claim("C8a", "deconvolution suppresses noise", "figure 4", None,
              "on the target, last layer − chance", "points of energy", minus(focus, chance)),
        Claim("C8b", "deconvolution amplifies the target class", "figure 4", None,
              "on the target, last − first layer of the decoder", "points of energy", minus(focus, start)),
        Claim("C8c", "unpooling keeps structure", "figure 4", None,
              "on the target, last layer, unpooling − bilinear", "points of energy",
              minus(focus, energy("ablated", -1)), ("bilinear",)),
        Claim("C8d", "unpooling keeps structure", "figure 5", None,
              "near contours, DeconvNet − FCN-8s", points, minus(iou("contour/deconvnet"), iou("contour/fcn8s"))),
    ]  # fmt: skip


def bootstrap(effect: Callable, runs: list[Samples], images: int, resamples: int, seed: int) -> tuple[float, tuple]:
    """The mean effect over runs (seeds), and its interval; each run has the same images, drawn alike for all."""
    (weights, drawn), whole = draws(images, len(runs), resamples, seed), np.ones((1, images), int)
    found = np.stack([effect(run, weights) for run in runs])  # (runs, resamples)
    values = (found * drawn.T).sum(axis=0) / len(runs)
    return float(np.mean([effect(run, whole)[0] for run in runs])), interval(values)


class Asked(dict):
    """Samples that remember what was asked of them."""

    def __init__(self, run: Samples):
        super().__init__(run)
        self.keys_asked = []

    def __getitem__(self, key: str) -> np.ndarray:
        self.keys_asked.append(key)
        return super().__getitem__(key)


def dead(effect: Callable, run: Samples, images: int) -> list[str]:
    """A line that says which methods that an effect is measured with predict background only, if any does."""
    asked = Asked(run)
    effect(asked, np.ones((1, images), int))
    parts = {part for key in asked.keys_asked for part in key.split("/")}
    tallies = {title: f"tally/{method}" for method, title in tables.METHODS.items() if method in parts}
    tallies |= {"the opponent": "ablated/tally"} if "ablated" in parts else {}
    found = [title for title, key in tallies.items() if key in run and samples.background(run[key]) >= BACKGROUND_ONLY]
    return [f"{' and '.join(found)} predict{'s' * (len(found) == 1)} background only"] if found else []


def strongest(names: tuple[str, ...], ablations: Samples) -> str | None:
    """That of some ablations with the highest mean IoU, None if none of them was run."""
    present = [name for name in names if f"{name}/tally" in ablations]
    return max(present, key=lambda name: samples.mean_iou(ablations[f"{name}/tally"].sum(axis=0)), default=None)


def opponent(rival: str, names: tuple[str, ...], ablations: Samples) -> list[str]:
    """Which of several ablations it is; nothing to say where there can be only one."""
    several = sum(f"{name}/tally" in ablations for name in names) > 1
    return [f"the {'stronger ' if several else ''}opponent: DeconvNet {ABLATED[rival]}"] if len(names) > 1 else []


def ledger(
    claims: list[Claim], runs: list[Samples], ablations: Samples, images: int, dataset: str, resamples: int, seed: int
) -> list[dict]:
    """A row for each claim. `runs` are this run and its repetitions with other seeds. A claim that needs an ablation
    compares each of them with it, and reads "not run" if `ablations` lacks it: `runs` counts the trainings on the side
    of the whole network, `seeds` those of the side that has fewer, which is 1 where an ablation stands.
    """
    rows = []
    for claim in claims:
        row = {"id": claim.id, "statement": claim.statement, "paper": claim.paper, "paper_effect": claim.published}
        row |= {"measured": claim.measured, "unit": claim.unit, "dataset": dataset}
        effect, ci, judged, rival = math.nan, (math.nan, math.nan), runs, strongest(claim.needs, ablations)
        if rival:
            part = {key.replace(rival, "ablated", 1): v for key, v in ablations.items() if key.startswith(f"{rival}/")}
            judged = [run | part for run in runs]
        if rival or not claim.needs:
            effect, ci = bootstrap(claim.effect, judged, images, resamples, seed)
        if math.isfinite(effect):
            told = opponent(rival, claim.needs, ablations) + dead(claim.effect, judged[0], images)
            counted = {"runs": len(judged), "seeds": 1 if rival else len(judged)}
            row |= {"effect": effect, "ci": list(ci), "verdict": verdict(*ci)} | counted
            rows.append(row | {"measured": "; ".join([claim.measured, *told])})
        else:  # no ablation of this experiment, or a val without truth
            rows.append(row | {"effect": None, "ci": [None, None], "runs": 0, "seeds": 0, "verdict": "not run"})
    return rows


def belonging(path: Path, experiment: str) -> Samples:
    """What was collected at `path`(.npz and .json) if it is of this experiment: same data, settings; else nothing."""
    record = path.with_suffix(".json")
    if not record.is_file() or json.loads(record.read_text())["experiment"] != experiment:
        return {}
    return samples.read(path.with_suffix(".npz"))


def gather(settings: Params) -> tuple[list[Samples], Samples]:
    """The samples of this run and of its repetitions with other seeds, and of the ablations."""
    experiment = experiment_id(settings)
    own = {}
    for path in sorted(SAMPLES.glob("*.npz")):
        own |= samples.read(path)
    repeated: dict[str, Samples] = {}
    for key, value in belonging(REPORTS / "seeds", experiment).items():
        number, name = key.split("/", 1)
        repeated.setdefault(number, {})[name] = value
    return [own, *(repeated[number] for number in sorted(repeated))], belonging(REPORTS / "ablations", experiment)

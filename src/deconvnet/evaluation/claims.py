"""The claims of the paper, and the result of each here: an effect, a 95 % interval, and a verdict by one rule.

Effects are signed so that a positive value supports the claim. The interval is a bootstrap over the images of val, with
the same resamples for both sides of a comparison; with several seeds, over seeds and images. An ablation was trained
once: each run is compared with it, and the interval does not include the ablation's own variance over seeds.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from deconvnet.config.paths import COUNTS, REPORTS
from deconvnet.evaluation import methods, per_image
from deconvnet.evaluation.bootstrap import bootstrap, energy, iou, minus, object_measure, slope
from deconvnet.evaluation.per_image import PerImageCounts

ABLATED = {  # DeconvNet …
    "one_stage": "in one stage", "no_batch_norm": "without batch norm, decoder initialised with std 0.01",
    "no_batch_norm_he": "without batch norm, He-initialised decoder", "bilinear": "with bilinear upsampling",
}  # fmt: skip
BACKGROUND_ONLY = 99.9  # % of the pixels: from here on a method is said to predict background only


def verdict(low: float, high: float) -> str:
    """The rule, committed before the first results: on which side of 0 the whole interval lies."""
    if low > 0:
        return "replicated"
    return "not replicated" if high < 0 else "inconclusive"


@dataclass(frozen=True)
class Claim:
    id: str
    statement: str
    paper: str  # its evidence
    published: float | None  # its effect, in the same unit
    measured: str  # what is measured here
    unit: str
    effect: Callable
    needs: tuple[str, ...] = ()  # ablations to compare with: the strongest is used, as "ablated"


def all_claims(small: float, large: float) -> list[Claim]:
    """C1 to C8; `small` and `large` bound the sizes of C5, as in reports/metrics.json."""
    mean = methods.published()["mean"]
    f, d, dc, e, ec = (mean[title] for title in methods.METHODS.values())
    deconvnet, fcn, ensemble = iou("counts/deconvnet"), iou("counts/fcn8s"), iou("counts/edeconvnet")
    points, recall = "points of mean IoU", partial(object_measure, "recall")
    focus, start, chance = energy("deconvnet", -1), energy("deconvnet", 2), energy("deconvnet", 0)
    return [
        Claim("C1", "DeconvNet beats FCN-8s", f"{d} vs {f} mean IoU", d - f,
              "DeconvNet − FCN-8s", points, minus(deconvnet, fcn)),
        Claim("C2", "the ensemble beats both members", f"{e} vs {d} and {f}", e - max(d, f),
              "EDeconvNet − the better member", points, minus(ensemble, deconvnet, fcn)),
        Claim("C3a", "the CRF adds about one point", f"{dc} vs {d}", dc - d,
              "DeconvNet+CRF − DeconvNet", points, minus(iou("counts/deconvnet_crf"), deconvnet)),
        Claim("C3b", "the CRF adds about one point", f"{ec} vs {e}", ec - e,
              "EDeconvNet+CRF − EDeconvNet", points, minus(iou("counts/edeconvnet_crf"), ensemble)),
        Claim("C4a", "more proposals, finer and better", "figure 6", None,
              "for each doubling of the proposals, best first", points, slope("proposals/best/")),
        Claim("C4b", "more proposals, finer and better", "figure 6", None,
              "for each doubling of the proposals, largest first", points, slope("proposals/largest/")),
        Claim("C5a", "FCN misses small objects, DeconvNet does not", "figure 1", None,
              f"small objects (side < {small:g}), DeconvNet − FCN-8s", "points of pixel recall",
              minus(recall("deconvnet", 0, small), recall("fcn8s", 0, small))),
        Claim("C5b", "FCN breaks large objects, DeconvNet does not", "figure 1", None,
              f"large objects (side ≥ {large:g}), DeconvNet − FCN-8s", "points of pixel recall",
              minus(recall("deconvnet", large, np.inf), recall("fcn8s", large, np.inf))),
        Claim("C6", "two-stage training is needed", "text", None, "two stages − one, same iterations", points,
              minus(deconvnet, iou("ablated/counts")), ("one_stage",)),
        Claim("C7", "batch normalisation is critical", "text", None, "with − without batch norm", points,
              minus(deconvnet, iou("ablated/counts")), ("no_batch_norm", "no_batch_norm_he")),
        Claim("C8a", "deconvolution suppresses noise", "figure 4", None,
              "on the target, last layer − chance", "points of energy", minus(focus, chance)),
        Claim("C8b", "deconvolution amplifies the target class", "figure 4", None,
              "on the target, last − first layer of the decoder", "points of energy", minus(focus, start)),
        Claim("C8c", "unpooling keeps structure", "figure 4", None,
              "on the target, last layer, unpooling − bilinear", "points of energy",
              minus(focus, energy("ablated", -1)), ("bilinear",)),
        Claim("C8d", "unpooling keeps structure", "figure 5", None,
              "near boundaries, DeconvNet − FCN-8s", points, minus(iou("boundary/deconvnet"), iou("boundary/fcn8s"))),
    ]  # fmt: skip


class KeyRecorder(dict):
    """Counts that remember which of their keys were read."""

    def __init__(self, run: PerImageCounts):
        super().__init__(run)
        self.keys_read = []

    def __getitem__(self, key: str) -> np.ndarray:
        self.keys_read.append(key)
        return super().__getitem__(key)


def background_only_note(effect: Callable, run: PerImageCounts, images: int) -> list[str]:
    """A sentence that names the methods behind an effect that predict background only, if there are any."""
    recorder = KeyRecorder(run)
    effect(recorder, np.ones((1, images), int))
    parts = {part for key in recorder.keys_read for part in key.split("/")}
    keys = {title: f"counts/{method}" for method, title in methods.METHODS.items() if method in parts}
    keys |= {"the ablated network": "ablated/counts"} if "ablated" in parts else {}
    names = [t for t, k in keys.items() if k in run and per_image.background_share(run[k]) >= BACKGROUND_ONLY]
    return [f"{' and '.join(names)} predict{'s' * (len(names) == 1)} background only"] if names else []


def strongest_ablation(names: tuple[str, ...], ablations: PerImageCounts) -> str | None:
    """The one with the highest mean IoU; None if none of them was run."""
    present = [name for name in names if f"{name}/counts" in ablations]
    return max(present, key=lambda name: per_image.mean_iou(ablations[f"{name}/counts"].sum(axis=0)), default=None)


def baseline_note(ablation: str, names: tuple[str, ...], ablations: PerImageCounts) -> list[str]:
    """Which of several possible ablations is the baseline; empty if there is only one."""
    several = sum(f"{name}/counts" in ablations for name in names) > 1
    return [f"{'stronger ' if several else ''}baseline: DeconvNet {ABLATED[ablation]}"] if len(names) > 1 else []


def claims_table(
    claims: list[Claim], runs: list[PerImageCounts], ablations: PerImageCounts, images: int, dataset: str,
    resamples: int, seed: int,
) -> list[dict]:  # fmt: skip
    """A row for each claim. `runs` are this run and its repetitions with other seeds.

    A claim that needs an ablation compares each run with it, and reads "not run" if `ablations` lacks it. `runs` in a
    row counts the trainings of the whole network, `seeds` those of the side that has fewer: 1 for an ablation.
    """
    rows = []
    for claim in claims:
        row = {"id": claim.id, "statement": claim.statement, "paper": claim.paper, "paper_effect": claim.published}
        row |= {"measured": claim.measured, "unit": claim.unit, "dataset": dataset}
        effect, ci, compared = math.nan, (math.nan, math.nan), runs
        ablation = strongest_ablation(claim.needs, ablations)
        if ablation:
            prefix = f"{ablation}/"
            ablated = {k.replace(ablation, "ablated", 1): v for k, v in ablations.items() if k.startswith(prefix)}
            compared = [run | ablated for run in runs]
        if ablation or not claim.needs:
            effect, ci = bootstrap(claim.effect, compared, images, resamples, seed)
        if math.isfinite(effect):
            notes = baseline_note(ablation, claim.needs, ablations)
            notes += background_only_note(claim.effect, compared[0], images)
            row |= {"effect": effect, "ci": list(ci), "verdict": verdict(*ci)}
            row |= {"runs": len(compared), "seeds": 1 if ablation else len(compared)}
            rows.append(row | {"measured": "; ".join([claim.measured, *notes])})
        else:  # no ablation of this experiment, or a val without ground truth
            if ablation or not claim.needs:
                row["measured"] += "; val has nothing to measure it on"
            rows.append(row | {"effect": None, "ci": [None, None], "runs": 0, "seeds": 0, "verdict": "not run"})
    return rows


def load_same_experiment(path: Path, experiment: str) -> PerImageCounts:
    """The counts collected at `path`(.npz and .json) if they are of this experiment (data and settings), else none."""
    record = path.with_suffix(".json")
    if not record.is_file() or json.loads(record.read_text(encoding="utf-8"))["experiment"] != experiment:
        return {}
    return per_image.load(path.with_suffix(".npz"))


def gather(experiment: str) -> tuple[list[PerImageCounts], PerImageCounts]:
    """The counts of this run and of its repetitions with other seeds; and those of the ablations."""
    own: PerImageCounts = {}
    for path in sorted(COUNTS.glob("*.npz")):
        own |= per_image.load(path)
    repetitions: dict[str, PerImageCounts] = {}
    for key, value in load_same_experiment(REPORTS / "seeds", experiment).items():
        number, name = key.split("/", 1)
        repetitions.setdefault(number, {})[name] = value
    ablations = load_same_experiment(REPORTS / "ablations", experiment)
    return [own, *(repetitions[number] for number in sorted(repetitions))], ablations

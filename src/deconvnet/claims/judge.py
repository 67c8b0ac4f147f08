"""The result of each claim here: an effect, its interval or range, and a verdict by rules that were fixed before.

- supported: the whole 95 % interval is above 0; contradicted: it is below; inconclusive: it holds 0.
- C1 and C2 are primary: each is judged by its own interval. The others are one family: Holm's method corrects their
  p-values for their number, and one whose corrected p-value is above 5 % is inconclusive.
- Where one side was trained once (an ablation), there is no interval: the range of the effect over all pairs of
  trainings takes its place, and the verdict is by whether the whole range has one sign.
- Where a check fails that the measure must pass, or results are missing, the claim is not run.
"""

import json
import math
from pathlib import Path

import numpy as np

from deconvnet.claims.statements import ABLATED, Claim, Control
from deconvnet.config.paths import COUNTS, REPORTS
from deconvnet.evaluation import per_image
from deconvnet.evaluation.bootstrap import Estimate, Measure, estimate, holm
from deconvnet.evaluation.methods import METHODS
from deconvnet.evaluation.per_image import PerImageCounts

VERDICTS = ("supported", "contradicted", "inconclusive", "not run")
BACKGROUND_ONLY = 99.9  # % of the pixels: from here on a method is said to predict background only
LEVEL = 0.05
NOT_MEASURED = {"effect": None, "ci": None, "range": None, "p": None, "per_seed": [], "seeds": 0}


def verdict(low: float, high: float) -> str:
    """On which side of 0 the whole interval, or range, lies."""
    if low > 0:
        return "supported"
    return "contradicted" if high < 0 else "inconclusive"


def bounds(row: dict) -> list[float]:
    """The interval of a claim or control, or its range if there is none."""
    return row["ci"] or row["range"]


class KeyRecorder(dict):
    """Counts that remember which of their keys were read."""

    def __init__(self, run: PerImageCounts):
        super().__init__(run)
        self.keys_read = []

    def __getitem__(self, key: str) -> np.ndarray:
        self.keys_read.append(key)
        return super().__getitem__(key)


def background_only_note(effect: Measure, run: PerImageCounts, images: int) -> list[str]:
    """A sentence that names the methods behind an effect that predict background only, if there are any."""
    recorder = KeyRecorder(run)
    effect(recorder, np.ones((1, images), int))
    read = {key.rpartition("/")[2] for key in recorder.keys_read if not key.startswith("ablated/")}
    keys = {title: f"counts/{method}" for method, title in METHODS.items() if method in read}
    if any(key.startswith("ablated/") for key in recorder.keys_read):
        keys["the ablated network"] = "ablated/counts/deconvnet"
    names = [t for t, k in keys.items() if k in run and per_image.background_share(run[k]) >= BACKGROUND_ONLY]
    return [f"{' and '.join(names)} predict{'s' * (len(names) == 1)} background only"] if names else []


def of_ablation(name: str, ablations: PerImageCounts) -> PerImageCounts:
    """The counts of one ablated network, under the names of a run's own; none if it was not trained."""
    prefix = f"{name}/"
    return {k.removeprefix(prefix): v for k, v in ablations.items() if k.startswith(prefix)}


def strongest_ablation(names: tuple[str, ...], ablations: PerImageCounts) -> str | None:
    """The one with the highest mean IoU; None if none of them was run."""
    found = {name: of_ablation(name, ablations).get("counts/deconvnet") for name in names}
    present = {name: per_image.mean_iou(counts.sum(axis=0)) for name, counts in found.items() if counts is not None}
    return max(present, key=present.__getitem__, default=None)


def baseline_note(ablation: str, names: tuple[str, ...], ablations: PerImageCounts) -> list[str]:
    """Which of several possible ablations is the baseline; empty if there is only one."""
    several = sum(bool(of_ablation(name, ablations)) for name in names) > 1
    return [f"{'stronger ' if several else ''}baseline: DeconvNet {ABLATED[ablation]}"] if len(names) > 1 else []


def measure(
    of: Claim | Control, runs: list[PerImageCounts], ablations: PerImageCounts, images: int, resamples: int, seed: int
) -> dict:
    """The numbers of a claim or a control. Without a result that it needs they are NOT_MEASURED."""
    ablation = strongest_ablation(of.needs, ablations) if of.needs else None
    notes = []
    if of.needs:
        if not ablation:
            return {"measure": of.measured, "unit": of.unit, **NOT_MEASURED}
        ablated = {f"ablated/{key}": counts for key, counts in of_ablation(ablation, ablations).items()}
        runs = [run | ablated for run in runs]
        notes = baseline_note(ablation, of.needs, ablations)
    row = {"measure": "; ".join([of.measured, *notes]), "unit": of.unit, **NOT_MEASURED}
    try:
        found = estimate(of.effect, runs, images, resamples, seed)
    except KeyError:  # no repetition with another seed, fewer proposals than asked for
        return row
    if not math.isfinite(found.value):
        return row | {"measure": f"{row['measure']}; val has nothing to measure it on"}
    row["measure"] = "; ".join([row["measure"], *background_only_note(of.effect, runs[0], images)])
    return row | numbers(found, once=bool(ablation))


def numbers(found: Estimate, once: bool) -> dict:
    """`once`: one side was trained once, so that there is a range and no interval."""
    row = {"effect": found.value, "per_seed": list(found.per_seed), "seeds": len(found.per_seed)}
    if once:
        return row | {"ci": None, "range": [min(found.per_seed), max(found.per_seed)], "p": None}
    return row | {"ci": list(found.ci), "range": None, "p": found.p}


def claims_table(
    claims: list[Claim], runs: list[PerImageCounts], ablations: PerImageCounts, images: int, dataset: str,
    resamples: int, seed: int, known: dict[str, list[dict]] | None = None,
) -> list[dict]:  # fmt: skip
    """A row for each claim. `runs` are this run and its repetitions with other seeds; `known` are further controls of a
    claim, already measured.
    """
    options = {"runs": runs, "ablations": ablations, "images": images, "resamples": resamples, "seed": seed}
    rows = []
    for claim in claims:
        row = {"id": claim.id, "primary": claim.primary, "statement": claim.statement, "paper": claim.paper}
        row |= {"paper_effect": claim.published, "dataset": dataset, **measure(claim, **options)}
        row |= {"against_one": bool(claim.needs), "note": claim.note}
        row["controls"] = [measure(control, **options) | {"check": control.check} for control in claim.controls]
        row["controls"] += (known or {}).get(claim.id, [])
        rows.append(row)
    family = {row["id"]: row["p"] for row in rows if not row["primary"] and row["p"] is not None}
    corrected = holm(family)
    for row in rows:
        row["p_holm"] = corrected.get(row["id"])
        row["verdict"] = judged(row)
    return rows


def judged(row: dict) -> str:
    checks = [control for control in row["controls"] if control["check"]]
    if row["effect"] is None or not all(c["effect"] is not None and bounds(c)[0] > 0 for c in checks):
        return "not run"
    if row["p_holm"] is not None and row["p_holm"] > LEVEL:
        return "inconclusive"
    return verdict(*bounds(row))


def ceiling(covered: dict[str, dict], proposals: int, size: str) -> dict:
    """A control: the share of objects of a size that one of so many proposals covers, of reports/proposals.json."""
    found = covered.get(str(proposals), {}).get(size)
    text = f"{size} objects with a proposal of IoU ≥ 0.5, of the best {proposals}"
    value = None if found is None or not math.isfinite(found) else 100 * found
    return {"measure": text, "unit": "% of objects", **NOT_MEASURED, "effect": value, "check": False}


def load_same_experiment(path: Path, experiment: str) -> PerImageCounts:
    """The counts collected at `path`(.npz and .json) if they are of this experiment (data and settings), else none."""
    record = path.with_suffix(".json")
    if not record.is_file() or json.loads(record.read_text(encoding="utf-8"))["experiment"] != experiment:
        return {}
    return per_image.load(path.with_suffix(".npz"))


def gather(experiment: str, names: tuple[str, ...]) -> list[PerImageCounts]:
    """The counts `names` (data/counts/<name>.npz) of this run and those of its repetitions with other seeds. Each has
    the counts of the next one as next/…, and the first is the next of the last.
    """
    runs: dict[str, PerImageCounts] = {"": {}}
    for name in names:
        runs[""] |= per_image.load(COUNTS / f"{name}.npz")
    for key, value in load_same_experiment(REPORTS / "seeds", experiment).items():
        number, name = key.split("/", 1)
        runs.setdefault(number.removeprefix("own"), {})[name] = value
    found = [runs[number] for number in sorted(runs)]
    if len(found) == 1:
        return found
    following = [*found[1:], found[0]]
    return [run | {f"next/{k}": v for k, v in after.items()} for run, after in zip(found, following, strict=True)]


def gather_ablations(experiment: str) -> PerImageCounts:
    return load_same_experiment(REPORTS / "ablations", experiment)


def metrics_of_seeds(experiment: str) -> list[dict]:
    """metrics.json of each repetition with another seed, if they are of this experiment."""
    record = json.loads((REPORTS / "seeds.json").read_text(encoding="utf-8"))
    return list(record["metrics"].values()) if record["experiment"] == experiment else []

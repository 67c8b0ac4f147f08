"""The paper's claims at every training budget. Each is judged at the largest budget that its networks were trained at,
by the rules of claims/judge.py, and marked by whether they have converged there.
"""

from collections.abc import Callable

import numpy as np

from deconvnet.claims.judge import LEVEL, verdict
from deconvnet.claims.statements import Claim
from deconvnet.evaluation.bootstrap import Measure, Weights, holm
from deconvnet.evaluation.per_image import PerImageCounts
from deconvnet.studies.results import Study

BOTH = ("deconvnet", "fcn8s")
NETWORKS = {  # what each claim compares
    "C1": BOTH, "C2": BOTH, "C3a": ("deconvnet",), "C3b": BOTH, "C5a": BOTH, "C5b": BOTH, "C8d": BOTH,
    "C6": ("deconvnet", "one_stage"), "C7": ("deconvnet", "no_batch_norm_he"), "C8c": ("deconvnet", "bilinear"),
}  # fmt: skip


def with_ablations(measure: Measure, needs: tuple[str, ...]) -> Measure:
    """The measure on a run of all arms, of which one of `needs` is the ablated DeconvNet; of several, the one that
    leaves the lowest effect.
    """
    if not needs:
        return measure

    def of(name: str) -> Callable[[PerImageCounts, Weights], np.ndarray]:
        def one(run: PerImageCounts, weights: Weights) -> np.ndarray:
            ablated = {}
            for key, value in run.items():
                kind, _, arm = key.rpartition("/")
                if arm == name:
                    ablated[f"ablated/{kind}/deconvnet"] = value
            return measure(run | ablated, weights)

        return one

    return lambda run, weights: np.min([of(name)(run, weights) for name in needs], axis=0)


def judge(claims: list[Claim], study: Study, converged: dict[str, dict[str, bool | None]]) -> dict[str, dict]:
    """{claim: its effect at each budget, and its verdict}, of the claims whose measure the studies have."""
    found = {}
    for claim in claims:
        if claim.id not in NETWORKS:
            continue
        rows = study.over_budgets(with_ablations(claim.effect, claim.needs))
        row = {"statement": claim.statement, "measure": claim.measured, "unit": claim.unit, "judged_at": None}
        row |= {"budgets": {str(budget): numbers for budget, numbers in rows.items()}, "p_holm": None}
        if rows:
            at = row["judged_at"] = max(rows)
            row["converged"] = {arm: converged.get(arm, {}).get(str(at)) for arm in NETWORKS[claim.id]}
        found[claim.id] = row
    several = {c for c, row in found.items() if any(len(n["seeds"]) > 1 for n in row["budgets"].values())}
    last = {c: found[c]["budgets"][str(found[c]["judged_at"])] for c in found if c in several}
    primary = {claim.id for claim in claims if claim.primary}
    for claim, p in holm({c: numbers["p"] for c, numbers in last.items() if c not in primary}).items():
        found[claim]["p_holm"] = p
    for claim, row in found.items():
        if claim not in last:  # without a spread over seeds, an interval is about images alone
            row["verdict"] = "not judged: one seed" if row["budgets"] else "not run"
        elif row["p_holm"] is not None and row["p_holm"] > LEVEL:
            row["verdict"] = "inconclusive"
        else:
            row["verdict"] = verdict(*last[claim]["ci"])
    return found

"""The rules of the studies, committed before their first run: when a network has converged, where two curves cross,
and what the 2×2 of decoder and input says.
"""

import math
import statistics
from itertools import pairwise


def spread(dev: dict[int, list[float]]) -> dict[int, float]:
    """{budget: mean IoU on dev of each seed} → the standard deviation over seeds to judge each budget by: its own, or
    where there is one seed that of the largest budget with several. NaN if none has several.
    """
    own = {budget: statistics.stdev(values) for budget, values in dev.items() if len(values) > 1}
    last = own[max(own)] if own else math.nan
    return {budget: own.get(budget, last) for budget in dev}


def converged(dev: dict[int, list[float]]) -> dict[int, bool | None]:
    """{budget: mean IoU on dev of each seed} → whether the network has converged at each budget: doubling it moves the
    mean by less than one standard deviation over seeds. None where the doubled budget was not trained.
    """
    found, deviation = {}, spread(dev)
    for budget, values in sorted(dev.items()):
        doubled = dev.get(2 * budget)
        moved = abs(statistics.mean(doubled) - statistics.mean(values)) if doubled else math.nan
        found[budget] = None if math.isnan(moved) or math.isnan(deviation[budget]) else moved < deviation[budget]
    return found


def crossing(first: dict[int, float], second: dict[int, float]) -> float | None:
    """The budget from which on `first` is above `second`, of {budget: mean IoU}: by straight lines between budgets on a
    logarithmic axis. The lowest common budget if it is above at all of them, None if it is not above at the last.
    """
    budgets = sorted(first.keys() & second.keys())
    gaps = [first[b] - second[b] for b in budgets]
    if not gaps or gaps[-1] <= 0:
        return None
    for (low, high), (before, after) in reversed(list(zip(pairwise(budgets), pairwise(gaps), strict=True))):
        if before <= 0:
            share = -before / (after - before)
            return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    return float(budgets[0])


def two_by_two(iou: dict[tuple[str, str], float]) -> dict[str, float]:
    """{(decoder, input): mean IoU, a number or an array} → what the deconvolution decoder and the proposals bring, each
    averaged over the other; both together; and by how much the decoder brings more on proposals than on whole images.
    """
    whole, cut = ({d: iou[d, i] for d in ("fcn8s", "deconvolution")} for i in ("whole image", "proposals"))
    decoder = [side["deconvolution"] - side["fcn8s"] for side in (whole, cut)]
    proposals = [cut[d] - whole[d] for d in ("fcn8s", "deconvolution")]
    return {
        "decoder": (decoder[0] + decoder[1]) / 2,
        "proposals": (proposals[0] + proposals[1]) / 2,
        "both": cut["deconvolution"] - whole["fcn8s"],
        "interaction": decoder[1] - decoder[0],
    }

"""The paper's claims C1 to C8, each with the measure that tests it, and what is measured beside it.

Effects are signed so that a positive value supports the claim. claims.judge gives each a verdict.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from deconvnet.evaluation import errors, methods
from deconvnet.evaluation.bootstrap import Measure
from deconvnet.evaluation.measures import (
    contour_difference,
    deconvolution_gain,
    energy,
    iou,
    minus,
    objects,
    rank_correlation,
)

ABLATED = {  # DeconvNet …
    "one_stage": "in one stage", "no_batch_norm": "without batch norm, decoder initialised with std 0.01",
    "no_batch_norm_he": "without batch norm, He-initialised decoder", "bilinear": "with bilinear upsampling",
}  # fmt: skip
IOU, RECALL, SHARE = "points of mean IoU", "points of pixel recall", "points of the objects' pixels"
CONTOUR, ENERGY = "points of IoU near boundaries", "points of energy"
NO_BATCH_NORM = ("no_batch_norm", "no_batch_norm_he")


@dataclass(frozen=True)
class Control:
    """A number beside a claim: what else could explain the effect, or what the effect costs."""

    measured: str
    unit: str
    effect: Measure
    needs: tuple[str, ...] = ()  # ablations to compare with: the one with the highest mean IoU, as "ablated"
    check: bool = False  # unless it is above 0, the claim's measure does not track quality: there is no verdict


@dataclass(frozen=True)
class Claim:
    id: str
    statement: str
    paper: str  # its evidence
    published: float | None  # its effect, in the same unit
    measured: str  # what is measured here
    unit: str
    effect: Measure
    needs: tuple[str, ...] = ()  # as of a control
    controls: tuple[Control, ...] = ()
    note: str = ""  # what the effect cannot tell apart

    @property
    def primary(self) -> bool:
        """Judged by its own interval; the others are corrected for their number."""
        return self.id in ("C1", "C2")


def all_claims(small: float, large: float, counts: list[int], used: int, of_objects: str = "") -> list[Claim]:
    """C1 to C8. `small` and `large` bound the sizes of C5; C4 is measured at the least and the most of `counts`
    proposals, and at the number `used` in inference. `of_objects` is added to the notes of C5, which counts objects.
    """
    mean = methods.published()["mean"]
    f, d, dc, e, ec = (mean[title] for title in methods.METHODS.values())
    tiny, big = {"low": 0, "high": small}, {"low": large, "high": np.inf}
    fewest, most = min(counts), max(counts)

    def more(order: str, low: int, high: int) -> Measure:
        names = ["rule/maximum" if n == used else f"{order}/{n}" for n in (high, low)]  # all that inference uses
        return minus(*(iou(name, "proposals") for name in names))

    def crf(method: str, suffix: str = "crf") -> Measure:
        return minus(iou(f"{method}_{suffix}"), iou(method))

    def cost(method: str) -> tuple[Control, ...]:
        """What the CRF does to small objects and to precision."""
        after, name = f"{method}_crf", methods.METHODS[method]
        return (
            Control(f"small objects, {name}+CRF − {name}", RECALL,
                    minus(objects("recall", after, **tiny), objects("recall", method, **tiny))),
            Control(f"precision, {name}+CRF − {name}", "points of precision",
                    minus(errors.share("precision", after), errors.share("precision", method))),
        )  # fmt: skip

    without_crf = Control("FCN-8s+CRF − FCN-8s", IOU, crf("fcn8s"))
    paper_kernel = {m: Control(f"{methods.METHODS[m]}, with the paper's own kernel", IOU, crf(m, "crf_paper"))
                    for m in ("deconvnet", "edeconvnet")}  # fmt: skip
    last = partial(energy, kind="excess", layer=-1)
    tracks = (
        Control("check: does the last layer's excess go with the IoU of the crop's label map, over objects?",
                "rank correlation × 100", rank_correlation("deconvnet", -1), check=True),
        Control("check: is it higher than without batch norm?", ENERGY,
                minus(last("deconvnet"), last("ablated/deconvnet")), NO_BATCH_NORM, check=True),
    )  # fmt: skip
    once = "There is one training budget: what helps at it may only be faster at the start."
    claims = [
        Claim("C1", "DeconvNet beats FCN-8s", f"{d} vs {f} mean IoU", d - f,
              "DeconvNet − FCN-8s", IOU, minus(iou("deconvnet"), iou("fcn8s"))),
        Claim("C2", "the ensemble beats both members", f"{e} vs {d} and {f}", e - max(d, f),
              "EDeconvNet − the better member", IOU, minus(iou("edeconvnet"), iou("deconvnet"), iou("fcn8s")),
              controls=(
                  Control("two FCN-8s of different seeds − the better", IOU,
                          minus(iou("two_fcn8s"), iou("fcn8s"), iou("next/fcn8s"))),
                  Control("two DeconvNets of different seeds − the better", IOU,
                          minus(iou("two_deconvnet"), iou("deconvnet"), iou("next/deconvnet"))),
                  Control("EDeconvNet − two FCN-8s", IOU, minus(iou("edeconvnet"), iou("two_fcn8s"))),
              )),
        Claim("C3a", "the CRF improves DeconvNet", f"{dc} vs {d}", dc - d, "DeconvNet+CRF − DeconvNet", IOU,
              crf("deconvnet"), controls=(paper_kernel["deconvnet"], without_crf, *cost("deconvnet"))),
        Claim("C3b", "the CRF improves the ensemble", f"{ec} vs {e}", ec - e, "EDeconvNet+CRF − EDeconvNet", IOU,
              crf("edeconvnet"), controls=(
                  paper_kernel["edeconvnet"],
                  Control("EDeconvNet+CRF − FCN-8s+CRF", IOU, minus(iou("edeconvnet_crf"), iou("fcn8s_crf"))),
                  *cost("edeconvnet"))),
        Claim("C4a", "more proposals are better", "figure 6", None, f"from {fewest} to {used} proposals, largest first",
              IOU, more("largest", fewest, used)),
        Claim("C4b", "more proposals are better", "figure 6", None, f"from {fewest} to {used} proposals, best first",
              IOU, more("best", fewest, used), controls=(
                  Control(f"from {used} to {most} proposals", IOU, more("best", used, most)),)),
        Claim("C5a", "FCN misses small objects, DeconvNet does not", "figure 1", None,
              f"small objects (side < {small:g}), DeconvNet − FCN-8s", RECALL,
              minus(objects("recall", "deconvnet", **tiny), objects("recall", "fcn8s", **tiny)), controls=(
                  Control("IoU of the same objects, DeconvNet − FCN-8s", "points of IoU of objects",
                          minus(objects("iou", "deconvnet", **tiny), objects("iou", "fcn8s", **tiny))),),
              note="DeconvNet is trained on crops around objects, FCN-8s on whole images: the sampling may be the "
                   "cause, and not the network."),
        Claim("C5b", "FCN breaks large objects, DeconvNet does not", "figure 1", None,
              f"share of large objects (side ≥ {large:g}) given to another class, FCN-8s − DeconvNet", SHARE,
              minus(objects("other", "fcn8s", **big), objects("other", "deconvnet", **big)), controls=(
                  Control("split objects (a fifth right, a fifth another class), FCN-8s − DeconvNet",
                          "points of objects",
                          minus(objects("split", "fcn8s", **big), objects("split", "deconvnet", **big))),
                  Control("pixel recall of the same objects, DeconvNet − FCN-8s", RECALL,
                          minus(objects("recall", "deconvnet", **big), objects("recall", "fcn8s", **big))))),
        Claim("C6", "two-stage training is needed", "text", None, "two stages − one, same iterations", IOU,
              minus(iou("deconvnet"), iou("ablated/deconvnet")), ("one_stage",), note=once),
        Claim("C7", "batch normalisation is critical", "text", None, "with − without batch norm", IOU,
              minus(iou("deconvnet"), iou("ablated/deconvnet")), NO_BATCH_NORM, note=once),
        Claim("C8a", "deconvolution suppresses noise", "figure 4", None,
              "excess on the target, after a block's deconvolutions − before, mean over the blocks", ENERGY,
              deconvolution_gain("deconvnet"), controls=tracks),
        Claim("C8b", "the decoder amplifies the target class", "figure 4", None,
              "excess on the target, last deconvolution − first", ENERGY,
              minus(last("deconvnet"), energy("deconvnet", 1, "excess")), controls=(
                  *tracks,
                  Control("the same up to the block before the last", ENERGY,
                          minus(energy("deconvnet", -3, "excess"), energy("deconvnet", 1, "excess"))))),
        Claim("C8c", "unpooling keeps structure", "figure 4", None,
              "objects that both call right, unpooling − bilinear", CONTOUR,
              contour_difference("deconvnet", "ablated/deconvnet"), ("bilinear",), controls=(
                  Control("mean IoU, unpooling − bilinear", IOU,
                          minus(iou("deconvnet"), iou("ablated/deconvnet")), ("bilinear",)),)),
        Claim("C8d", "DeconvNet is finer than FCN", "figure 5", None,
              "objects that both call right, DeconvNet − FCN-8s", CONTOUR,
              contour_difference("deconvnet", "fcn8s"), controls=(
                  Control("mean IoU near boundaries − over whole images, of DeconvNet − FCN-8s", IOU,
                          lambda run, weights: minus(iou("deconvnet", "boundary"), iou("fcn8s", "boundary"))(
                              run, weights) - minus(iou("deconvnet"), iou("fcn8s"))(run, weights)),)),
    ]  # fmt: skip
    return [
        replace(claim, note=f"{claim.note} {of_objects}".strip()) if claim.id.startswith("C5") else claim
        for claim in claims
    ]

"""Claims that need an ablation: every run against the strongest one, which says so if it predicts nothing."""

import numpy as np
import pytest
from test_claims import CLASSES, drawn, judge

from deconvnet.config.paths import REPORTS
from deconvnet.evaluation import bootstrap, claims, per_image
from deconvnet.report import tables

WITHOUT = bootstrap.minus(bootstrap.iou("tally/a"), bootstrap.iou("ablated/tally"))


def test_a_claim_without_its_ablation_is_not_run():
    run = {"tally/a": drawn(0.8, 60, 1)}
    row = judge(WITHOUT, [run], needs=("one_stage",))
    assert (row["effect"], row["ci"], row["runs"], row["seeds"]) == (None, [None, None], 0, 0)
    assert row["verdict"] == "not run"
    row = judge(WITHOUT, [run], {"one_stage/tally": drawn(0.6, 60, 2)}, needs=("one_stage",))
    assert (row["verdict"], row["runs"], row["seeds"], row["measured"]) == ("replicated", 1, 1, "measured")


def test_every_run_is_compared_with_the_one_ablation():
    """The best of the runs says less than all of them: the mean effect is lower, and the interval covers the others."""
    runs = [{"tally/a": drawn(quality, 60, i)} for i, quality in enumerate((0.8, 0.7, 0.68, 0.62))]
    ablation = {"one_stage/tally": drawn(0.6, 60, 9)}
    best, row = (judge(WITHOUT, some, ablation, needs=("one_stage",)) for some in (runs[:1], runs))
    each = [judge(WITHOUT, [run], ablation, needs=("one_stage",))["effect"] for run in runs]
    assert row["effect"] == pytest.approx(np.mean(each))
    assert row["effect"] < best["ci"][0]
    assert row["ci"][1] - row["ci"][0] > 1.5 * (best["ci"][1] - best["ci"][0])
    assert (row["runs"], row["seeds"], tables.seeds_text(row), tables.seeds_text(best)) == (4, 1, "4 against 1", "1")


def test_the_stronger_ablation_is_the_opponent():
    run, needs = {"tally/a": drawn(0.8, 60, 1)}, ("no_batch_norm", "no_batch_norm_he")
    weak, strong = {"no_batch_norm/tally": drawn(0.5, 60, 2)}, {"no_batch_norm_he/tally": drawn(0.7, 60, 3)}
    both, first, second = (judge(WITHOUT, [run], a, needs=needs) for a in (weak | strong, weak, strong))
    assert both["effect"] == second["effect"] < first["effect"]
    he, plain = (f"DeconvNet {claims.ABLATED[name]}" for name in reversed(needs))
    assert both["measured"] == f"measured; the stronger opponent: {he}"
    assert [row["measured"] for row in (first, second)] == [f"measured; the opponent: {t}" for t in (plain, he)]


def test_what_predicts_background_only_is_said_to():
    nothing = np.zeros((60, 3, CLASSES), np.uint32)
    nothing[:, 1, :2], nothing[:, 2, 0], nothing[:, 0, 0] = 50, 100, 50
    run, needs = {"tally/deconvnet": drawn(0.8, 60, 1), "tally/fcn8s": nothing}, ("one_stage",)
    effect = bootstrap.minus(bootstrap.iou("tally/deconvnet"), bootstrap.iou("ablated/tally"))
    row = judge(effect, [run], {"one_stage/tally": nothing}, needs=needs)
    assert row["measured"] == "measured; the opponent predicts background only"
    assert judge(effect, [run], {"one_stage/tally": drawn(0.6, 60, 2)}, needs=needs)["measured"] == "measured"
    row = judge(bootstrap.minus(bootstrap.iou("tally/deconvnet"), bootstrap.iou("tally/fcn8s")), [run])
    assert row["measured"] == "measured; FCN-8s predicts background only"
    run["tally/deconvnet"] = nothing
    row = judge(bootstrap.minus(bootstrap.iou("tally/deconvnet"), bootstrap.iou("tally/fcn8s")), [run])
    assert row["measured"] == "measured; FCN-8s and DeconvNet predict background only"
    run["tally/deconvnet"] = drawn(0.8, 60, 1)
    assert [per_image.background_share(run[f"tally/{m}"]) for m in ("fcn8s", "deconvnet")] == [
        100,
        pytest.approx(50, abs=2),
    ]


def test_the_claims_that_need_an_ablation_read_it():
    """The real C6, C7 and C8c, on the committed counts: each is measured, against what it names."""
    ablations = per_image.load(REPORTS / "ablations.npz")
    runs: dict[str, dict] = {}
    for key, value in per_image.load(REPORTS / "seeds.npz").items():
        number, name = key.split("/", 1)
        runs.setdefault(number, {})[name] = value
    stated = [claim for claim in claims.all_claims(0.15, 0.4) if claim.needs]
    rows = claims.claims_table(stated, list(runs.values()), ablations, 300, "d", 200, 0)
    assert [row["id"] for row in rows] == ["C6", "C7", "C8c"]
    assert all(row["runs"] == len(runs) and row["seeds"] == 1 and row["verdict"] != "not run" for row in rows)
    whole = np.mean([100 * per_image.mean_iou(run["tally/deconvnet"].sum(axis=0)) for run in runs.values()])
    alone = 100 * per_image.mean_iou(ablations["one_stage/tally"].sum(axis=0))
    assert rows[0]["effect"] == pytest.approx(whole - alone)
    on_target = [100 * source["deconvnet/energy"][:, -1].mean() for source in runs.values()]
    assert rows[2]["effect"] == pytest.approx(np.mean(on_target) - 100 * ablations["bilinear/energy"][:, -1].mean())

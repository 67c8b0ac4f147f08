"""The rules of the verdict, controls and checks, and what must read "not run"."""

import json

import numpy as np
import pytest
from counted import CLASSES, drawn

from deconvnet.claims import judge, statements
from deconvnet.claims.judge import VERDICTS
from deconvnet.claims.statements import Claim, Control
from deconvnet.config.paths import REPORTS, TABLES
from deconvnet.evaluation import experiment, per_image
from deconvnet.evaluation.measures import iou, minus
from deconvnet.pipeline.repro import LONG_RUNS

A_B = minus(iou("a"), iou("b"))


def claim(effect=A_B, needs=(), controls=(), name="C9") -> Claim:
    return Claim(name, "statement", "evidence", None, "measured", "points", effect, needs, controls)


def table(claims, runs, ablations=None, images=60) -> list[dict]:
    return judge.claims_table(claims, runs, ablations or {}, images, "d", 2000, 0)


def run(first: float, second: float, seed: int = 0) -> dict:
    return {"counts/a": drawn(first, 60, 10 * seed + 1), "counts/b": drawn(second, 60, 10 * seed + 2)}


@pytest.mark.parametrize(
    ("first", "second", "verdict"), [(0.8, 0.6, "supported"), (0.6, 0.8, "contradicted"), (0.7, 0.7, "inconclusive")]
)
def test_verdicts_of_three_random_cases(first, second, verdict):
    (row,) = table([claim()], [run(first, second)])
    assert row["verdict"] == verdict
    assert row["ci"][0] <= row["effect"] <= row["ci"][1]
    assert (row["seeds"], row["per_seed"]) == (1, [row["effect"]])


def test_verdict_is_by_the_interval():
    assert [judge.verdict(*ci) for ci in ((0.1, 5), (-5, -0.1), (-0.1, 5), (0, 5), (-5, 0))] == [
        "supported", "contradicted", "inconclusive", "inconclusive", "inconclusive"
    ]  # fmt: skip


def test_a_comparison_is_paired():
    """A method against itself: the difference is 0 in every resample."""
    (row,) = table([claim(minus(iou("a"), iou("a")))], [run(0.7, 0.7)])
    assert (row["effect"], row["ci"], row["verdict"]) == (0, [0, 0], "inconclusive")


def test_the_ensemble_must_beat_the_better_member():
    runs = [run(0.7, 0.6) | {"counts/c": drawn(0.8, 60, 3)}]
    row, other = table([claim(minus(iou("a"), iou("b"), iou("c"))), claim(minus(iou("a"), iou("c")))], runs)
    assert row["effect"] == other["effect"]
    assert row["verdict"] == "contradicted"


def test_secondary_claims_are_corrected_for_their_number_and_primary_ones_are_not():
    """An effect whose own interval is just above 0, alone, among twenty others, and as a primary claim."""
    rng = np.random.default_rng(0)
    weak = {"w": rng.normal(0.3, 1, 60)}

    def effect(run, weights):
        return weights @ run["w"] / 60

    (alone,) = table([claim(effect)], [weak])
    assert 0.05 / 21 < alone["p"] < 0.05
    assert alone["verdict"] == "supported"
    many = table([claim(effect, name=f"C{i}") for i in range(9, 30)], [weak])
    assert many[0]["ci"] == alone["ci"]  # an interval is of its own test
    assert many[0]["p_holm"] == pytest.approx(min(1, 21 * many[0]["p"]))
    assert {row["verdict"] for row in many} == {"inconclusive"}
    primary, *_ = table([claim(effect, name="C1"), *(claim(effect, name=f"C{i}") for i in range(9, 30))], [weak])
    assert (primary["verdict"], primary["p_holm"]) == ("supported", None)


# Ablations


def against(ablated: float) -> dict:
    return {"one_stage/counts/deconvnet": drawn(ablated, 60, 5)}


STAGES = claim(minus(iou("deconvnet"), iou("ablated/deconvnet")), ("one_stage",))


def trained(*qualities: float) -> list[dict]:
    return [{"counts/deconvnet": drawn(q, 60, i)} for i, q in enumerate(qualities)]


@pytest.mark.parametrize(
    ("whole", "verdict"), [((0.8, 0.78), "supported"), ((0.6, 0.5), "contradicted"), ((0.8, 0.6), "inconclusive")]
)
def test_an_ablation_trained_once_has_a_range_and_no_interval(whole, verdict):
    (row,) = table([STAGES], trained(*whole), against(0.7))
    assert (row["ci"], row["p"], row["p_holm"]) == (None, None, None)
    assert row["range"] == [min(row["per_seed"]), max(row["per_seed"])]
    assert (row["seeds"], row["against_one"], row["verdict"]) == (2, True, verdict)


def test_without_the_ablation_the_claim_is_not_run():
    (row,) = table([STAGES], trained(0.8), {})
    assert (row["verdict"], row["effect"], row["seeds"]) == ("not run", None, 0)


def test_the_baseline_is_the_stronger_of_two_ablations():
    both = {
        f"{name}/counts/deconvnet": drawn(q, 60, 5) for name, q in (("no_batch_norm", 0.6), ("no_batch_norm_he", 0.7))
    }
    needs = ("no_batch_norm", "no_batch_norm_he")
    assert judge.strongest_ablation(needs, both) == "no_batch_norm_he"
    (row,) = table([claim(STAGES.effect, needs)], trained(0.8), both)
    assert row["measure"].endswith("stronger baseline: DeconvNet without batch norm, He-initialised decoder")


# Controls and checks


def test_a_control_is_measured_like_a_claim_and_has_no_verdict():
    controls = (Control("the other way", "points", minus(iou("b"), iou("a"))),)
    (row,) = table([claim(controls=controls)], [run(0.8, 0.6)])
    (control,) = row["controls"]
    assert control["effect"] == pytest.approx(-row["effect"])
    assert control["ci"] == pytest.approx([-row["ci"][1], -row["ci"][0]])
    assert "verdict" not in control


@pytest.mark.parametrize(("quality", "verdict"), [(0.9, "supported"), (0.7, "not run"), (0.5, "not run")])
def test_a_measure_whose_check_fails_gives_no_verdict(quality, verdict):
    runs = [run(0.8, 0.6) | {"counts/c": drawn(quality, 60, 3), "counts/d": drawn(0.7, 60, 4)}]
    check = Control("check", "points", minus(iou("c"), iou("d")), check=True)
    (row,) = table([claim(controls=(check,))], runs)
    assert row["verdict"] == verdict
    assert row["effect"] is not None  # it is shown all the same


def test_a_check_that_was_not_run_gives_no_verdict():
    check = Control("check", "points", STAGES.effect, ("one_stage",), check=True)
    (row,) = table([claim(controls=(check,))], [run(0.8, 0.6)])
    assert (row["verdict"], row["controls"][0]["effect"]) == ("not run", None)


def test_a_control_without_its_counts_is_not_run():
    control = Control("two of a kind", "points", iou("two_fcn8s"))
    (row,) = table([claim(controls=(control,))], [run(0.8, 0.6)])
    assert (row["verdict"], row["controls"][0]["effect"]) == ("supported", None)


def test_the_ceiling_of_the_proposals_is_a_control():
    covered = {"50": {"small": 0.116, "medium": None}}
    assert judge.ceiling(covered, 50, "small")["effect"] == pytest.approx(11.6)
    assert judge.ceiling(covered, 50, "medium")["effect"] is None
    assert judge.ceiling(covered, 8, "small")["effect"] is None
    known = {"C9": [judge.ceiling(covered, 50, "small")]}
    (row,) = judge.claims_table([claim()], [run(0.8, 0.6)], {}, 60, "d", 2000, 0, known)
    assert [c["unit"] for c in row["controls"]] == ["% of objects"]


# What is not there


def test_without_ground_truth_a_claim_is_not_run():
    nothing = {f"counts/{m}": np.zeros((60, 3, CLASSES), np.uint32) for m in "ab"}
    (row,) = table([claim()], [nothing])
    assert row["verdict"] == "not run"
    assert row["measure"] == "measured; val has nothing to measure it on"


def test_a_method_that_predicts_background_only_is_named():
    background = np.zeros((60, 3, CLASSES), np.uint32)
    background[:, :, 0], background[:, 1, 1] = 50, 50
    background[:, 2, 0] = 100
    (row,) = table([claim(minus(iou("deconvnet"), iou("fcn8s")))], [{"counts/deconvnet": background,
                                                                     "counts/fcn8s": drawn(0.7, 60, 1)}])  # fmt: skip
    assert row["measure"] == "measured; DeconvNet predicts background only"


def test_results_of_another_experiment_are_not_taken(tmp_path):
    per_image.save(tmp_path / "seeds.npz", {"1/counts/a": drawn(0.8, 3, 1)})
    (tmp_path / "seeds.json").write_text('{"experiment": "0123abcd"}')
    assert list(judge.load_same_experiment(tmp_path / "seeds", "0123abcd")) == ["1/counts/a"]
    assert judge.load_same_experiment(tmp_path / "seeds", "ffffffff") == {}
    assert judge.load_same_experiment(tmp_path / "missing", "0123abcd") == {}


def test_each_run_knows_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "COUNTS", tmp_path)
    monkeypatch.setattr(judge, "REPORTS", tmp_path)
    values = {"": 0, "0": 1, "3": 2}
    per_image.save(tmp_path / "methods.npz", {"counts/a": np.array(0)})
    seeds = {f"{k}/counts/a": np.array(v) for k, v in values.items() if k} | {"own/counts/two_a": np.array(9)}
    per_image.save(tmp_path / "seeds.npz", seeds)
    (tmp_path / "seeds.json").write_text('{"experiment": "0123abcd"}')
    runs = judge.gather("0123abcd", ("methods",))
    assert [(int(r["counts/a"]), int(r["next/counts/a"])) for r in runs] == [(0, 1), (1, 2), (2, 0)]
    assert runs[0]["counts/two_a"] == 9
    assert judge.gather("ffffffff", ("methods",)) == [{"counts/a": 0}]


# The claims of the paper, and the committed table


def test_primary_claims_and_units():
    claims = statements.all_claims(0.15, 0.4, [1, 5, 50, 100], 50)
    assert [c.id for c in claims if c.primary] == ["C1", "C2"]
    assert [c.id for c in claims if any(control.check for control in c.controls)] == ["C8a", "C8b"]
    assert len({c.id for c in claims}) == len(claims)


@pytest.mark.reports
def test_the_committed_table_is_complete_and_its_page_has_the_same_verdicts():
    rows, page = json.loads((REPORTS / "claims.json").read_text()), (TABLES / "claims.md").read_text()
    runs = 1 + len(json.loads((REPORTS / "seeds.json").read_text())["metrics"])
    objects = "bilinear/objects/contour/deconvnet" in per_image.load(REPORTS / "ablations.npz")
    lines = {line.split("|")[1].strip(): line for line in page.split("\n") if line.startswith("| C") and "**" in line}
    ids = ["C1", "C2", "C3a", "C3b", "C4a", "C4b", "C5a", "C5b", "C6", "C7", "C8a", "C8b", "C8c", "C8d"]
    assert [row["id"] for row in rows] == ids == [name.removesuffix(", primary") for name in lines]
    for row, line in zip(rows, lines.values(), strict=True):
        assert {"statement", "paper", "dataset", "measure", "unit", "p", "controls"} <= set(row)
        assert row["verdict"] == judge.judged(row) in VERDICTS
        assert f"**{row['verdict']}**" in line
        assert all(control["effect"] is not None for control in row["controls"])
        if row["effect"] is None:
            assert (row["id"], objects) == ("C8c", False)
            continue
        low, high = judge.bounds(row)
        assert low <= row["effect"] <= high
        assert len(row["per_seed"]) == row["seeds"] == runs
        assert row["effect"] == pytest.approx(np.mean(row["per_seed"]), abs=1e-4)
        assert (row["ci"] is None) == row["against_one"] == (row["id"] in ("C6", "C7", "C8c"))
        assert f"{row['effect']:+.1f}" in line


def test_the_committed_long_runs_are_of_the_committed_experiment():
    records = [json.loads((REPORTS / f"{name}.json").read_text()) for name in LONG_RUNS]
    found = {record["experiment"] for record in [*records, *records[0]["variants"].values()]}
    assert found == {experiment.read()}

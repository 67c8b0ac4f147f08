"""The rules of the studies by hand, the arms, their equal operations, and what `make studies` selects and keeps."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call
from stages import STAGES, outputs

from deconvnet.claims import statements
from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.data.voc import VOID
from deconvnet.evaluation import measures, per_image
from deconvnet.images.boxes import BOX
from deconvnet.pipeline import studies
from deconvnet.studies import arms, candidates, cells, ensembles, page, plots, results, rules, verdicts
from deconvnet.training import examples

pytestmark = pytest.mark.usefixtures("on_the_cpu")


# When a network has converged, where curves cross, and the 2×2


def test_converged_by_hand():
    """Seeds at 1 and 4: standard deviations 0.02 and 0.01; at 2 and 8 there is one seed, judged by that of 4."""
    dev = {1: [0.30, 0.32, 0.34], 2: [0.38], 4: [0.40, 0.41, 0.42], 8: [0.415], 16: [0.50]}
    assert rules.spread(dev) == {1: pytest.approx(0.02), 2: pytest.approx(0.01), 4: pytest.approx(0.01),
                                 8: pytest.approx(0.01), 16: pytest.approx(0.01)}  # fmt: skip
    # 1 → 2: 0.06; 2 → 4: 0.03; 4 → 8: 0.005; 8 → 16: 0.085; nobody doubled 16
    assert rules.converged(dev) == {1: False, 2: False, 4: True, 8: False, 16: None}
    assert rules.converged({1: [0.3, 0.31], 4: [0.4]}) == {1: None, 4: None}
    assert rules.converged({1: [0.3], 2: [0.3]}) == {1: None, 2: None}  # no spread is known


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({1: 0.2, 2: 0.3, 4: 0.4}, {1: 0.3, 2: 0.35, 4: 0.35}, 2 * 2**0.5),  # −0.05 at 2, +0.05 at 4
        ({1: 0.4, 2: 0.5}, {1: 0.3, 2: 0.4}, 1.0),  # always above
        ({1: 0.4, 2: 0.3}, {1: 0.3, 2: 0.4}, None),  # above at first only
        ({1: 0.4, 2: 0.3, 4: 0.5}, {1: 0.3, 2: 0.4, 4: 0.4}, 2 * 2**0.5),  # the last crossing counts
        ({1: 0.4}, {2: 0.4}, None),  # no common budget
    ],
)
def test_crossing_by_hand(first, second, expected):
    assert rules.crossing(first, second) == (None if expected is None else pytest.approx(expected))


def test_two_by_two_by_hand():
    iou = {("fcn8s", "whole image"): 40, ("fcn8s", "proposals"): 30,
           ("deconvolution", "whole image"): 20, ("deconvolution", "proposals"): 36}  # fmt: skip
    # the decoder brings −20 on whole images and +6 on proposals; proposals bring −10 to FCN-8s and +16 to DeconvNet
    assert rules.two_by_two(iou) == {"decoder": -7, "proposals": 3, "both": -4, "interaction": 26}
    assert set(arms.TWO_BY_TWO) == set(iou)
    assert set(arms.TWO_BY_TWO.values()) <= set(arms.ARMS)


# The arms


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Four small scenes in train and dev, with proposals, and no backbone: the encoder starts anew."""
    rng = np.random.default_rng(0)
    settings = params.validate(params.compose("smoke"), "smoke")
    names = {"train": ["a", "b"], "dev": ["c", "d"]}
    scenes = {}
    for name in "abcd":
        labels, instances = np.zeros((48, 64), np.uint8), np.zeros((48, 64), np.uint8)
        labels[10:30, 10:40], instances[10:30, 10:40] = 8, 1
        labels[0, 0] = VOID
        scenes[name] = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), labels, instances
    objects = pd.DataFrame([("x", 1, 8, 10, 10, 40, 30)], columns=["image", "instance", "label", *BOX])
    found = np.array([[8, 8, 42, 32, 0.9], [0, 30, 30, 48, 0.5], [30, 0, 64, 20, 0.4]])

    class Pictures(dict):
        def fingerprint(self):
            return "scenes"

    monkeypatch.setattr(arms, "split_images", lambda split: Pictures({n: scenes[n] for n in names[split]}))
    monkeypatch.setattr(arms.voc, "read_list", lambda root, split: names[split])
    monkeypatch.setattr(arms.weights, "initialise", lambda net, settings: net.to(memory_format=torch.channels_last))
    monkeypatch.setattr(examples, "load_proposals", lambda split: dict.fromkeys(names[split], found))
    of_split = {s: pd.concat([objects.assign(image=n) for n in names[s]], ignore_index=True) for s in names}
    monkeypatch.setattr(examples.voc, "read_objects", lambda path, split: of_split[split])
    return settings, scenes["a"], found


@pytest.mark.parametrize("arm", arms.ARMS)
def test_every_arm_trains_on_its_batches_and_predicts_an_image(project, arm):
    settings, (image, _, _), found = project
    net = arms.network(arm, settings)
    for phase in arms.phases(arm, settings):
        images, labels = phase.batches["train"].resampled(1, 2)[0]
        whole = arm == "fcn8s"
        side = settings.network.size
        assert images.shape[-2:] == labels.shape[-2:] == ((64, 64) if whole else (side, side))
        assert net(images).shape == (2, 21, *images.shape[-2:])
    scores = arms.predict(arm, net.eval(), image, found, settings)
    assert scores.shape == (21, 48, 64)
    assert scores.dtype == torch.float32


def test_an_unknown_arm_is_named(project):
    with pytest.raises(ValueError, match=r"deconvnet, fcn8s, .* not other"):
        arms.network("other", project[0])


def test_whole_images_are_resized_with_their_labels(project):
    settings, (_, labels, _), _ = project
    (phase,) = arms.phases("deconvnet_whole", settings)
    _, masks = phase.batches["train"].resampled(1, 8)[0]
    assert set(masks.unique().tolist()) == {0, 8} | ({VOID} & set(masks.unique().tolist()))
    share = (labels == 8).mean()
    assert (masks == 8).float().mean().item() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("arm", arms.ARMS)
def test_all_arms_have_the_same_operations(project, arm):
    settings, *_ = project
    settings = settings.model_copy(update={
        "stage1": settings.stage1.model_copy(update={"iterations": 300}),
        "stage2": settings.stage2.model_copy(update={"iterations": 700}),
    })  # fmt: skip
    _, total = cells.operations("deconvnet", settings)
    for budget in (1, 4):
        phases = cells.budgeted(arm, settings, budget, 1.0)
        net = arms.network(arm, settings)
        spent = sum(phase.solver.iterations * cells.flops(net, phase) for phase in phases)
        assert spent == pytest.approx(budget * total, rel=0.03)
    first = [phase.solver.iterations for phase in cells.budgeted(arm, settings, 1, 1.0)]
    if len(first) == 2:  # two stages keep their proportion
        assert first[0] / sum(first) == pytest.approx(0.3, abs=0.01)


def test_a_longer_training_samples_the_same_batches_first(project):
    """Batches are functions of (seed, step): budget 4 begins with those of budget 1."""
    settings, *_ = project
    short, long = (cells.budgeted("deconvnet", settings, budget, 1.0)[0].batches["train"] for budget in (1, 4))
    assert len(long) == 4 * len(short)
    assert torch.equal(short[0][0], long[0][0])
    with pytest.raises(IndexError):
        short[len(short)]


# What `make studies` does


def test_the_plan_is_what_dvc_can_train():
    planned = studies.planned()
    stages = params.read_yaml(ROOT / "studies" / "dvc.yaml")["stages"]
    assert set(stages["cell"]["matrix"]["arm"]) == set(stages["rate"]["matrix"]["arm"]) == set(arms.ARMS)
    assert {c.arm for c in planned} == {*arms.ARMS, *ensembles.ENSEMBLES}
    assert set(studies.ENSEMBLES) == set(ensembles.ENSEMBLES)
    for name, of_pipeline in studies.ENSEMBLES.items():
        assert set(of_pipeline) == {arm for arm, _ in ensembles.ENSEMBLES[name]}
        for cell in (c for c in planned if c.arm == name):  # every member is planned too, and comes first
            for arm in of_pipeline:
                assert planned.index(studies.Cell(arm, cell.budget, cell.seed)) < planned.index(cell)
    assert set(params.read_yaml(candidates.CANDIDATES)) == set(stages["candidate"]["matrix"]["name"])
    assert {c.budget for c in planned} <= set(stages["cell"]["matrix"]["budget"])
    assert [c.budget for c in planned] == sorted(c.budget for c in planned)
    both = {(c.budget, c.seed) for c in planned if c.arm == "deconvnet"}
    assert both == {(c.budget, c.seed) for c in planned if c.arm == "fcn8s"}  # FCN-8s gets every budget too
    assert set(studies.PREPARED) <= set(STAGES)


def test_the_default_run_does_not_wait_for_the_studies():
    """DVC would run `together` before a stage that depends on a folder in which it writes."""
    needed = {dep for name, stage in STAGES.items() if not name.startswith("studies/") for dep in stage["deps"]}
    for made in outputs(STAGES["studies/together"]):
        assert not any(f"{made}/".startswith(f"{dep}/") for dep in needed), made


def test_cells_are_selected_by_name():
    planned = studies.planned()
    some = studies.select(planned, ["bilinear"], [1], [])
    assert [(c.arm, c.budget) for c in some] == [("bilinear", 1)] * 3
    assert studies.select(planned, [], [], []) == planned
    for wrong, text in (((["bilinaer"], [], []), "no arm bilinaer"), (([], [3], []), "no budget 3")):
        with pytest.raises(UserError, match=text):
            studies.select(planned, *wrong)


def test_results_of_another_profile_are_not_those_in_git():
    cell = studies.Cell("deconvnet", 4, 2)
    assert cell.result("studies") == ROOT / "reports" / "studies" / "deconvnet-x4-s2.json"
    assert cell.result("smoke").is_relative_to(ROOT / "runs")


def test_the_studies_are_the_default_with_more_scenes():
    default, settings = params.compose("icons"), params.compose("studies")
    for split, scenes in (("dev", 500), ("val", 1000)):
        assert settings["icons"].pop(split) == scenes != default["icons"].pop(split)
    assert settings | {"profile": "icons"} == default


def test_the_second_of_two_of_one_family_is_of_another_seed():
    for cell in (c for c in studies.planned() if c.arm.startswith("two_")):
        assert studies.following(cell) != cell.seed


def test_a_study_of_the_smoke_profile(clone):
    """Both networks and their ensemble, from nothing to results; a second call has nothing left to do."""
    command = ("python", "-m", "deconvnet.pipeline.studies", "--profile", "smoke", "--budgets", "1", "--seeds", "2",
               "--only", "deconvnet", "fcn8s", "edeconvnet")  # fmt: skip
    done = call(clone, *command)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "2 trainings: at least" in done.stdout
    folder = clone / "runs" / "smoke-studies"
    for arm in ("deconvnet", "fcn8s"):
        record = json.loads((folder / f"{arm}-x1-s2.json").read_text())
        factor = json.loads((folder / f"rate-{arm}.json").read_text())["factor"]
        assert (record["arm"], record["budget"], record["factor"]) == (arm, 1, factor)
        assert factor in cells.FACTORS
        assert record["hours"] > 0
        assert 0 <= record["mean_iou"]["val"] <= 1
        assert record["dev_curve"]["step"][-1] == record["iterations"][-1]
        with np.load(folder / f"{arm}-x1-s2.npz") as counts:
            assert counts[f"counts/{arm}"].shape == (8, 3, 21)
    found = results.Study(results.load(folder), 0.15, 0.4, 50, 0).summary()
    assert set(found["budgets"]["1"]) == {"deconvnet", "fcn8s", "edeconvnet", "edeconvnet_crf", "deconvnet_crf"}
    both = [found["budgets"]["1"][arm]["tflop"] for arm in ("deconvnet", "fcn8s")]
    assert found["budgets"]["1"]["edeconvnet"]["tflop"] == pytest.approx(sum(both))
    again = call(clone, *command)
    assert "3 of 3 cells have a result" in again.stdout
    assert "Running stage" not in again.stdout


# What the results say together


def drawn(share: float, images: int = 2) -> np.ndarray:
    """Images of 100 pixels of class 1, of which a share is correct and the rest has no class: a mean IoU of `share`."""
    counts = np.zeros((images, 3, 21), np.uint32)
    counts[:, 0, 1] = counts[:, 2, 1] = round(100 * share)
    counts[:, 1, 1] = 100
    return counts


@pytest.fixture
def folder(tmp_path):
    """Three arms of the 2×2 with two seeds at budget 1, the fourth with one; DeconvNet at budget 2 too."""
    shares = {
        "fcn8s": (0.4, 0.44),
        "fcn8s_proposals": (0.3, 0.32),
        "deconvnet_whole": (0.2, 0.26),
        "deconvnet": (0.36,),
    }
    cells_of = {(arm, 1, seed): share for arm, values in shares.items() for seed, share in enumerate(values)}
    cells_of |= {("deconvnet", 2, 0): 0.5}
    cells_of |= {("one_stage", 1, 0): 0.2, ("one_stage", 1, 1): 0.21, ("one_stage", 2, 0): 0.3}
    for (arm, budget, seed), share in cells_of.items():
        path = tmp_path / f"{arm}-x{budget}-s{seed}"
        objects = {
            "objects/image": np.array([0, 1]),
            "objects/size": np.array([0.1, 0.5]),
            "objects/label": np.array([1, 1]),
        }
        counts = {f"counts/{arm}": drawn(share), f"objects/recall/{arm}": np.array([0.1, share], np.float16)}
        per_image.save(path.with_suffix(".npz"), counts | objects)
        record = {"experiment": "e", "arm": arm, "budget": budget, "flops": budget * 54e12, "mean_iou": {"dev": share}}
        record |= {"hours": 0.5, "machine": "a processor", "inference_flops": 5e8}
        record |= {"dev_curve": {"step": [5, 10], "mean_iou": [0.1, share]}}
        path.with_suffix(".json").write_text(json.dumps(record))
    return tmp_path


def test_the_summary_by_hand(folder):
    study = results.Study(results.load(folder), 0.15, 0.4, 200, 0)
    found = study.summary()
    row = found["budgets"]["1"]["fcn8s"]
    assert row["mean_iou"]["value"] == pytest.approx(42)
    assert (row["tflop"], row["seeds"]) == (54, [0, 1])
    assert row["recall_small"]["value"] == pytest.approx(10, abs=0.1)
    assert row["recall_large"]["per_seed"] == pytest.approx([40, 44], abs=0.1)
    assert found["converged"]["deconvnet"] == {"1": None, "2": None}  # one seed: no spread is known
    assert found["crossing"] is None  # the only common budget is 1, where FCN-8s is above
    both = found["two_by_two"]["1"]  # on seed 0, which all four have
    assert both["decoder"]["value"] == pytest.approx(100 * ((0.2 - 0.4) + (0.36 - 0.3)) / 2)
    assert both["proposals"]["value"] == pytest.approx(100 * ((0.3 - 0.4) + (0.36 - 0.2)) / 2)
    assert both["both"]["per_seed"] == [pytest.approx(100 * (0.36 - 0.4))]
    assert "2" not in found["two_by_two"]
    assert row["hours"] == 1


def test_a_method_with_the_crf_costs_what_it_costs_without(folder):
    """DeconvNet+CRF is evaluated in EDeconvNet's cell, and has DeconvNet's operations."""
    counts = {f"counts/{method}": drawn(0.5) for method in ("edeconvnet", "edeconvnet_crf", "deconvnet_crf")}
    recall = {key.replace("counts", "objects/recall"): np.array([0.1, 0.5], np.float16) for key in counts}
    shared = per_image.load(folder / "deconvnet-x1-s0.npz")
    shared = {key: value for key, value in shared.items() if not key.endswith("/deconvnet")}
    per_image.save(folder / "edeconvnet-x1-s0.npz", counts | recall | shared)
    record = json.loads((folder / "deconvnet-x1-s0.json").read_text()) | {"arm": "edeconvnet", "mean_iou": {}}
    record |= {"flops": 108e12, "inference_flops": 9e8, "hours": 0.1}
    (folder / "edeconvnet-x1-s0.json").write_text(json.dumps(record))
    found = results.Study(results.load(folder), 0.15, 0.4, 50, 0).budgets()[1]
    costs = {m: (row["tflop"], row["gflop_an_image"], row["hours"]) for m, row in found.items() if m.endswith("_crf")}
    assert costs == {"deconvnet_crf": (54, 0.5, 0.5), "edeconvnet_crf": (108, 0.9, 0.1)}


def test_one_training_has_the_spread_of_several(folder):
    """Its images are all alike, so the whole interval is from the seeds of budget 1: 0.4 and 0.44."""
    study = results.Study(results.load(folder), 0.15, 0.4, 4000, 0)
    found = study.over_budgets(measures.iou("fcn8s"))
    assert found[1]["seeds"] == [0, 1]
    low, high = found[1]["ci"]
    (alone,) = [result.counts for result in study.results["fcn8s", 1].values()][:1]
    one = study.of_one(measures.iou("fcn8s"), alone, found[1]["per_seed"])
    assert one["value"] == pytest.approx(40)
    assert one["ci"][1] - one["ci"][0] == pytest.approx((high - low) * 2**0.5, rel=0.01)  # s, and not s / √2
    without = study.of_one(measures.iou("fcn8s"), alone, [40.0, 40.0])
    assert without["ci"] == pytest.approx([40, 40])


def claim(name: str, effect, needs=()) -> statements.Claim:
    return statements.Claim(name, "a statement", "text", None, "a measure", "points", effect, needs)


def test_a_claim_is_judged_at_its_largest_budget(folder):
    """By hand: FCN-8s less FCN-8s on proposals, 10 and 12 at budget 1; one stage, 20 and 21 at budget 1, 30 at 2."""
    study = results.Study(results.load(folder), 0.15, 0.4, 500, 0)
    pair = measures.minus(measures.iou("fcn8s"), measures.iou("fcn8s_proposals"))
    stated = [claim("C1", pair), claim("C8d", measures.iou("one_stage")), claim("C5a", measures.iou("missing"))]
    stated += [claim("C5b", measures.iou("deconvnet")), claim("C4a", measures.iou("fcn8s"))]
    found = verdicts.judge(stated, study, {"deconvnet": {"2": True}})
    assert set(found) == {"C1", "C8d", "C5a", "C5b"}  # C4a is about something that the budgets do not change
    assert found["C1"]["budgets"]["1"]["per_seed"] == pytest.approx([10, 12])
    assert (found["C8d"]["judged_at"], found["C8d"]["verdict"]) == (2, "supported")
    assert found["C8d"]["converged"] == {"deconvnet": True, "fcn8s": None}
    assert found["C5a"]["verdict"] == "not run"
    assert found["C5b"]["verdict"] == "not judged: one seed"  # 36 and 50, with intervals about images alone
    opposite = claim("C8d", lambda run, weights: -measures.iou("one_stage")(run, weights))
    assert verdicts.judge([opposite], study, {})["C8d"]["verdict"] == "contradicted"
    around = claim("C8d", lambda run, weights: measures.iou("one_stage")(run, weights) - 27)  # −7, −6; 3 at budget 2
    assert verdicts.judge([around], study, {})["C8d"]["verdict"] == "inconclusive"


def test_the_stronger_of_several_ablations_is_the_baseline(folder):
    study = results.Study(results.load(folder), 0.15, 0.4, 50, 0)
    effect = measures.minus(measures.iou("deconvnet"), measures.iou("ablated/deconvnet"))
    for needs, expected in (
        (("fcn8s",), -4), (("fcn8s_proposals",), 6), (("fcn8s", "fcn8s_proposals"), -4)
    ):  # fmt: skip
        found = study.over_budgets(verdicts.with_ablations(effect, needs))
        assert found[1]["value"] == pytest.approx(expected)
    assert study.over_budgets(verdicts.with_ablations(effect, ("bilinear",))) == {}


def test_results_of_another_experiment_are_left_out(folder):
    assert results.load(folder, "other") == {}
    assert set(results.load(folder, "e")) == set(results.load(folder))


def test_the_pictures_show_each_training(folder):
    found = results.Study(results.load(folder), 0.15, 0.4, 200, 0).summary()
    figure = plots.against_compute(found, {"mean_iou": "mean IoU, %"}, 54)
    dots = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    assert sorted(float(y) for line in dots for y in line.get_ydata()) == pytest.approx([36, 40, 44, 50])
    figure = plots.two_by_two(found["two_by_two"])
    assert [bar.get_height() for bar in figure.axes[0].patches] == pytest.approx([-7, 3, -4, 26])
    figure = plots.dev_curves(results.load(folder))
    assert [len(axis.lines) for axis in figure.axes] == [2, 2]  # DeconvNet at two budgets, FCN-8s with two seeds
    rows = {"1": {"ci": [1, 3], "per_seed": [1.5, 2.5]}, "4": {"ci": [-1, 1], "per_seed": [0]}}
    figure = plots.effects({"C1": {"budgets": rows, "verdict": "supported", "unit": "points"}}, [1, 4])
    dots = [y for line in figure.axes[0].lines if line.get_marker() == "o" for y in line.get_ydata()]
    assert dots == [1.5, 2.5, 0]
    table = pd.read_csv(ROOT / "studies" / "precedent.csv")
    assert [len(axis.lines) for axis in plots.precedent(table).axes] == [2, 2]


def test_the_page_says_what_the_numbers_say(folder):
    study = results.Study(results.load(folder), 0.15, 0.4, 200, 0)
    summary = study.summary()
    stated = [claim("C1", measures.iou("fcn8s")), claim("C6", measures.iou("x"))]
    summary["claims"] = verdicts.judge(stated, study, {})
    trained = {"dev_loss": {"stage1": 0.7, "stage2": 1.5}, "iterations": {"backbone": 5, "stage1": 6, "stage2": 7}}
    trained |= {"parameters": 1234, "flops": 2e12}
    tried = {name: trained | {"dev_mean_iou": value} for name, value in (("today", 0.3), ("wider", 0.35))}
    default = [{"id": "C1", "verdict": "contradicted"}]
    text = page.page(summary, default, tried, "drawn")
    rows = {}
    for line in (line for line in text.splitlines() if line.startswith("|")):
        rows.setdefault(line.split("|")[1].strip(), line)  # the first table
    assert "50.0 [50.0, 50.0] (1)" in rows["DeconvNet"]
    assert "42.0" in rows["C1"]
    assert "**supported**" in rows["C1"]
    assert rows["C1"].split("|")[-2].strip() == "contradicted"  # the default's
    assert "**not run**" in rows["C6"]
    assert list(rows).index("wider") < list(rows).index("today")  # the best on dev first
    assert "at the largest common budget it is not" in text
    empty = page.page({"budgets": {}, "crossing": None, "claims": {}, "two_by_two": {}}, [], {}, "nothing")
    assert empty.count("Not run yet.") == 5


# Candidates for the small network


def test_a_candidate_has_todays_operations(project, monkeypatch):
    settings, *_ = project
    longer = {part: {"iterations": 400} for part in candidates.TRAININGS} | {"backbone": {"iterations": 300}}
    today = params.validate(params.merge(settings.model_dump(mode="json"), longer), "today")
    monkeypatch.setattr(candidates, "operations", lambda settings: operations(settings))
    changed = {"wider": {"settings": {"network": {"fc": 32}}}, "seeds": {"seed": 1}}
    monkeypatch.setattr(candidates.params, "read_yaml", lambda path: changed)
    operations = lambda s: s.network.fc * (s.backbone.iterations + s.stage1.iterations + s.stage2.iterations)  # noqa: E731
    wider = candidates.settings_of("wider", today)
    assert wider.network.fc == 32
    assert [getattr(wider, part).iterations for part in candidates.TRAININGS] == [150, 200, 200]
    seeds = candidates.settings_of("seeds", today)
    assert seeds.stage1.seed == today.stage1.seed % 100 + 100
    assert seeds.stage1.iterations == today.stage1.iterations


def test_boxes_inside_an_object_are_told():
    objects = pd.DataFrame([("a", 10, 10, 40, 40)], columns=["image", *BOX])
    boxes = [
        ("a", 12, 12, 30, 30),
        ("a", 30, 30, 50, 50),
        ("a", 5, 10, 40, 40),
        ("a", 8, 10, 40, 40),
        ("b", 12, 12, 30, 30),
    ]
    table = pd.DataFrame(boxes, columns=["image", *BOX], index=[3, 5, 7, 9, 11])
    assert candidates.inside_objects(table, objects).tolist() == [True, False, False, True, False]  # 30 / 35, 30 / 32

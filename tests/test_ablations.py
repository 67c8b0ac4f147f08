"""Ablations: each variant lacks one thing; results are collected by experiment; claims compare with the strongest."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from counted import CLASSES, drawn
from torch import nn

from deconvnet.claims import judge, statements
from deconvnet.claims.statements import ABLATED, Claim
from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.config.paths import REPORTS
from deconvnet.data import voc
from deconvnet.evaluation import per_image
from deconvnet.evaluation.measures import contour_difference, iou, minus
from deconvnet.evaluation.methods import METHODS
from deconvnet.images import store
from deconvnet.inference import ensemble
from deconvnet.networks import build, variants, weights
from deconvnet.networks.deconvnet import DeconvNet
from deconvnet.pipeline import collect, repro
from deconvnet.report import tables
from deconvnet.training import ablations


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """The settings of smoke, with a saved backbone."""
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    settings = params.validate(params.compose("smoke"), "smoke")
    torch.manual_seed(0)
    net = build.make_deconvnet(settings)
    for module in net.encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    weights.save(net.encoder, "backbone", tmp_path)
    monkeypatch.setattr(weights.load, "__defaults__", (tmp_path,))
    return settings


def test_every_variant_is_trained_for_the_same_number_of_iterations(settings):
    both = settings.stage1.iterations + settings.stage2.iterations
    for variant in variants.VARIANTS:
        stages = ablations.schedule(variant, settings)
        assert sum(solver.iterations for _, solver in stages) == both
        assert [stage for stage, _ in stages] == ([2] if variant == "one_stage" else [1, 2])
    assert ablations.schedule("one_stage", settings)[0][1].lr == settings.stage2.lr


def test_only_the_learning_rate_is_scaled(settings):
    short = ablations.with_lr_factor(settings.stage2, 0.1, 3)
    assert (short.lr, short.iterations) == (0.1 * settings.stage2.lr, 3)
    assert ablations.with_lr_factor(settings.stage2, 1) == settings.stage2


def test_every_variant_starts_from_the_same_backbone(settings):
    """The encoder's maps are those of the backbone, whether batch norm is folded into the weights or not."""
    torch.manual_seed(1)
    x = 255 * torch.rand(2, 3, settings.network.size, settings.network.size)
    with torch.no_grad():
        first, *others = (variants.make_variant(v, settings).eval().encoder(x)[0][-1] for v in variants.VARIANTS)
    assert first.std() > 0
    for other in others:
        assert torch.allclose(first, other, rtol=1e-3, atol=1e-4)


def test_what_each_variant_lacks(settings):
    nets = {variant: variants.make_variant(variant, settings) for variant in variants.VARIANTS}
    norms = {v: sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) for v, net in nets.items()}
    assert norms["no_batch_norm"] == norms["no_batch_norm_he"] == 0
    assert norms["one_stage"] == norms["bilinear"] > 0
    assert type(nets["one_stage"]) is DeconvNet
    shapes = {v: {k: p.shape for k, p in net.named_parameters() if ".bn." not in k} for v, net in nets.items()}
    assert shapes["one_stage"] == shapes["bilinear"]
    assert {k for k in shapes["no_batch_norm"] if k.endswith("weight")} == {
        k for k in shapes["one_stage"] if k.endswith("weight")
    }
    with pytest.raises(ValueError, match="one_stage, no_batch_norm, no_batch_norm_he, bilinear, not none"):
        variants.make_variant("none", settings)


def test_hes_initialisation_by_the_inputs_of_an_output():
    torch.manual_seed(0)
    net = variants.he_initialise(DeconvNet(blocks=((32, 1), (64, 2)), fc=256, size=32, bn_eps=None))
    num_inputs = {"fc6_deconv.conv": 256, "decoder.0.deconv2_1.conv": 9 * 64, "decoder.1.deconv1_1.conv": 9 * 32}
    for name, inputs in num_inputs.items():
        assert net.get_submodule(name).weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.05), name
        assert not net.get_submodule(name).bias.any()
    assert net.score.weight.std().item() == pytest.approx((1 / 32) ** 0.5, rel=0.1)


def test_bilinear_upsampling_ignores_the_switches(settings):
    """Moving a maximum inside its 2 × 2 cell changes switches and no pooled map: bilinear's output stays the same."""
    torch.manual_seed(0)
    plain, other = (variants.make_variant(variant, settings).eval() for variant in ("one_stage", "bilinear"))
    other.load_state_dict(plain.state_dict())
    x = 255 * torch.rand(1, 3, settings.network.size, settings.network.size)
    with torch.no_grad():
        pools, switches = plain.encoder(x)
        moved = [s.flip(-1) for s in switches]
        for net, same in ((plain, False), (other, True)):
            outputs = []
            for given in (switches, moved):
                net.encoder.forward = lambda _, given=given: (pools, given)
                outputs.append(net(x))
            assert torch.equal(*outputs) is same


def test_a_learning_rate_with_which_training_diverges_is_never_selected(settings, monkeypatch):
    def diverge(*arguments, **named):
        raise FloatingPointError

    class NoBatches:
        resampled = lambda self, *arguments: self  # noqa: E731

    monkeypatch.setattr(ablations.loop, "train", diverge)
    assert ablations.try_lr_factor("bilinear", settings, 1.0, 2, NoBatches(), NoBatches()) == float("inf")


# Collected results of long runs


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "ROOT", tmp_path)
    monkeypatch.setattr(collect, "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(collect, "ABLATIONS", tmp_path / "data" / "ablations")
    monkeypatch.setattr(collect, "VOC", tmp_path / "data" / "voc")
    return tmp_path


def put(folder, name, experiment, value):
    per_image.save(folder / f"{name}.npz", {f"{name}/counts/deconvnet": np.array([value])})
    (folder / f"{name}.json").write_text(json.dumps({"experiment": experiment, "mean_iou": value}))


def test_ablations_are_collected(project):
    for value, name in enumerate(variants.VARIANTS):
        put(project / "data" / "ablations", name, "aa", value)
    collect.ablations()
    found = per_image.load(project / "reports" / "ablations.npz")
    expected = {f"{v}/counts/deconvnet": i for i, v in enumerate(variants.VARIANTS)}
    assert {key: v.item() for key, v in found.items()} == expected
    record = json.loads((project / "reports" / "ablations.json").read_text())
    assert record["experiment"] == "aa"
    assert set(record["variants"]) == set(variants.VARIANTS)


def test_a_variant_that_was_not_trained_here_is_kept(project):
    folder, collected = project / "data" / "ablations", project / "reports" / "ablations.json"
    put(folder, "one_stage", "aa", 1)
    put(folder, "bilinear", "aa", 2)
    collect.ablations()
    for path in folder.glob("one_stage.*"):
        path.unlink()
    put(folder, "bilinear", "aa", 3)
    collect.ablations()
    found = per_image.load(project / "reports" / "ablations.npz")
    expected = {"one_stage/counts/deconvnet": 1, "bilinear/counts/deconvnet": 3}
    assert {key: v.item() for key, v in found.items()} == expected
    assert set(json.loads(collected.read_text())["variants"]) == {"one_stage", "bilinear"}
    put(folder, "bilinear", "bb", 4)  # of another experiment: results of the former are dropped
    collect.ablations()
    assert set(per_image.load(project / "reports" / "ablations.npz")) == {"bilinear/counts/deconvnet"}
    assert set(json.loads(collected.read_text())["variants"]) == {"bilinear"}


def test_results_of_different_settings_are_not_mixed(project):
    put(project / "data" / "ablations", "bilinear", "aa", 1)
    put(project / "data" / "ablations", "one_stage", "bb", 2)
    with pytest.raises(UserError, match="different settings"):
        collect.ablations()
    assert not (project / "reports").exists()


def test_nothing_to_collect_says_what_to_do(project):
    with pytest.raises(UserError, match="make ablations"):
        collect.ablations()


@pytest.fixture
def seeds(project, monkeypatch):
    """The default and two repetitions, with mean IoU 0.2, 0.3 and 0.4, and score maps of the one image of val."""
    listed = voc.list_path(project / "data" / "voc", "val")
    listed.parent.mkdir(parents=True)
    listed.write_text("a\n")
    voc.save_mask(voc.labels_path(project / "data" / "voc", "a"), np.array([[0, 0, 1, 1]]))
    rng = np.random.default_rng(0)
    for number, value in (("own", 0.2), ("1", 0.3), ("2", 0.4)):
        run = collect.run_of(number)
        for name in collect.COUNTS:
            per_image.save(run / "data" / "counts" / f"{name}.npz", {name: np.array([value])})
        write_metrics(run, value)
        (run / "params.yaml").write_text(params.dump(params.compose("icons")))
        for model in ("deconvnet", "fcn8s"):
            with monkeypatch.context() as patch:
                patch.setattr(store, "SCORES", run / "data" / "scores")
                patch.setattr(store, "PREDICTIONS", run / "data" / "predictions")
                store.save_scores(model, "a", rng.normal(0, 3, (21, 1, 4)))
    for number in "12":
        collect.seed(number)
    collect.seeds()
    return project


def write_metrics(run, value):
    (run / "reports").mkdir(parents=True, exist_ok=True)
    metrics = {method: {"mean_iou": value} for method in METHODS}
    (run / "reports" / "metrics.json").write_text(json.dumps(metrics))


def test_seeds_are_collected_with_their_tolerance(seeds):
    found = per_image.load(seeds / "reports" / "seeds.npz")
    pairs = {f"{n}/counts/two_{model}" for n in ("own", "1", "2") for model in ("deconvnet", "fcn8s")}
    assert set(found) == {f"{n}/{name}" for n in "12" for name in collect.COUNTS} | pairs
    assert found["2/proposals"].item() == 0.4
    measured = json.loads((seeds / "reports" / "tolerance.json").read_text())["deconvnet"]["mean_iou"]
    assert measured["values"] == [0.2, 0.3, 0.4]
    assert measured["tolerance"] == pytest.approx(4.144 * 0.1 * (4 / 3) ** 0.5, rel=1e-3)  # t, deviation, mean of three
    write_metrics(seeds / "runs" / "quick", 0.1)
    collect.quick()  # with the variance of the default's three runs
    measured = json.loads((seeds / "reports" / "quick.json").read_text())["deconvnet"]["mean_iou"]
    assert measured["values"] == [0.1]
    assert measured["tolerance"] == pytest.approx(4.144 * 0.1 * 2**0.5, rel=1e-3)


def test_two_networks_of_different_seeds_are_an_ensemble(seeds):
    """Of each run with the next, and of the last with the default."""
    found = per_image.load(seeds / "reports" / "seeds.npz")
    order = ["own", "1", "2", "own"]
    for model in ("deconvnet", "fcn8s"):
        label_maps = []
        for pair in pairwise(order):
            scores = [store.read_scores(str(collect.run_of(n) / "data" / "scores" / model), "a") for n in pair]
            label_maps.append(sum(map(ensemble.probabilities, scores)).argmax(axis=0))
            counts = per_image.image_counts(np.array([[0, 0, 1, 1]]), label_maps[-1])
            assert (found[f"{pair[0]}/counts/two_{model}"] == counts[None]).all(), pair
        assert len({labels.tobytes() for labels in label_maps}) == 3


def test_two_networks_by_hand(project):
    """One is sure of class 1, the other a little less of class 2: the mean of their probabilities says 1."""
    listed = voc.list_path(project / "data" / "voc", "val")
    listed.parent.mkdir(parents=True)
    listed.write_text("a\n")
    voc.save_mask(voc.labels_path(project / "data" / "voc", "a"), np.array([[1, 2]]))
    for number, label, height in (("own", 1, 8.0), ("1", 2, 3.0)):
        for model in ("deconvnet", "fcn8s"):
            scores = np.zeros((21, 1, 2))
            scores[label] = height
            folder = collect.run_of(number) / "data" / "scores" / model
            store.save_scores(str(folder), "a", scores)
    found = collect.pairs(["own", "1"])
    assert set(found) == {f"{n}/counts/two_{m}" for n in ("own", "1") for m in ("deconvnet", "fcn8s")}
    for counts in found.values():
        assert counts.shape == (1, 3, 21)
        assert counts[0, :, 1:3].tolist() == [[1, 0], [1, 1], [2, 0]]  # correct, in the ground truth, predicted


LONG_RUN_STAGES = """
stages:
  train:
    matrix:
      variant: [a, b]
    wdir: ..
    cmd: cp source data/${item.variant}
    deps: [source]
    outs: ["data/${item.variant}"]
  collect:
    frozen: true
    wdir: ..
    cmd: python collect.py
    deps: [data/a, data/b]
    outs:
      - found: {cache: false}
"""


@pytest.mark.slow
def test_long_runs_are_collected_each_time(tmp_path):
    """DVC does not run a frozen stage, even by force; and `collect` must be one, or `make repro` would train."""
    for folder in ("ablations", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "ablations" / "dvc.yaml").write_text(LONG_RUN_STAGES)
    script = "print(open('data/a').read() + open('data/b').read(), file=open('found', 'w'))"
    (tmp_path / "collect.py").write_text(script)
    repro.dvc(tmp_path, "init", "--no-scm", "-q")
    for text in ("one", "two"):
        (tmp_path / "source").write_text(text)
        assert repro.reproduce_long_run(tmp_path, "ablations", ["train"]) == 0
        assert (tmp_path / "found").read_text() == f"{text}{text}\n"
    assert repro.dvc(tmp_path, "status", "-q", "ablations/dvc.yaml:collect") == 0
    (tmp_path / "collect.py").unlink()
    assert repro.reproduce_long_run(tmp_path, "ablations", ["train"]) != 0


# Claims that need an ablation

WITHOUT = minus(iou("deconvnet"), iou("ablated/deconvnet"))
HE = ("no_batch_norm", "no_batch_norm_he")


def judged(effect, runs, ablations=None, needs=()) -> dict:
    """The row of a claim on 60 images."""
    claim = Claim("C9", "statement", "evidence", None, "measured", "points", effect, needs)
    (row,) = judge.claims_table([claim], runs, ablations or {}, 60, "d", 2000, 0)
    return row


def ablated(name: str, quality: float, seed: int) -> dict:
    return {f"{name}/counts/deconvnet": drawn(quality, 60, seed)}


def test_a_claim_without_its_ablation_is_not_run():
    run = {"counts/deconvnet": drawn(0.8, 60, 1)}
    row = judged(WITHOUT, [run], needs=("one_stage",))
    nothing = {"effect": None, "ci": None, "range": None, "p": None, "per_seed": [], "seeds": 0, "verdict": "not run"}
    assert {key: row[key] for key in nothing} == nothing
    row = judged(WITHOUT, [run], ablated("bilinear", 0.6, 2), needs=("one_stage",))  # another ablation does not do
    assert {key: row[key] for key in nothing} == nothing
    row = judged(WITHOUT, [run], ablated("one_stage", 0.6, 2), needs=("one_stage",))
    assert (row["verdict"], row["seeds"], row["measure"]) == ("supported", 1, "measured")


def test_every_run_is_compared_with_the_ablation():
    """With all runs the mean effect is lower than with the best alone, and the range holds that of each run."""
    runs = [{"counts/deconvnet": drawn(quality, 60, i)} for i, quality in enumerate((0.8, 0.7, 0.68, 0.62))]
    ablation = ablated("one_stage", 0.6, 9)
    best, row = (judged(WITHOUT, some, ablation, needs=("one_stage",)) for some in (runs[:1], runs))
    each = [judged(WITHOUT, [run], ablation, needs=("one_stage",))["effect"] for run in runs]
    assert row["per_seed"] == each
    assert row["effect"] == pytest.approx(np.mean(each))
    assert row["effect"] < best["effect"]
    assert row["range"] == [min(each), max(each)]
    assert best["range"] == [each[0], each[0]]
    assert row["ci"] is best["ci"] is None
    assert (row["seeds"], tables.seeds_text(row), tables.seeds_text(best)) == (4, "4 against 1", "1 against 1")


def test_the_stronger_ablation_is_the_baseline():
    run = {"counts/deconvnet": drawn(0.8, 60, 1)}
    weak, strong = ablated(HE[0], 0.5, 2), ablated(HE[1], 0.7, 3)
    both, first, second = (judged(WITHOUT, [run], a, needs=HE) for a in (weak | strong, weak, strong))
    assert both["effect"] == second["effect"] < first["effect"]
    plain, he = (f"DeconvNet {ABLATED[name]}" for name in HE)
    assert both["measure"] == f"measured; stronger baseline: {he}"
    assert [row["measure"] for row in (first, second)] == [f"measured; baseline: {t}" for t in (plain, he)]


def test_methods_that_predict_background_only_are_named():
    nothing = np.zeros((60, 3, CLASSES), np.uint32)
    nothing[:, 1, :2], nothing[:, 2, 0], nothing[:, 0, 0] = 50, 100, 50
    run, needs = {"counts/deconvnet": drawn(0.8, 60, 1), "counts/fcn8s": nothing}, ("one_stage",)
    row = judged(WITHOUT, [run], {"one_stage/counts/deconvnet": nothing}, needs=needs)
    assert row["measure"] == "measured; the ablated network predicts background only"
    assert judged(WITHOUT, [run], ablated("one_stage", 0.6, 2), needs=needs)["measure"] == "measured"
    against_fcn = minus(iou("deconvnet"), iou("fcn8s"))
    assert judged(against_fcn, [run])["measure"] == "measured; FCN-8s predicts background only"
    row = judged(against_fcn, [run | {"counts/deconvnet": nothing}])
    assert row["measure"] == "measured; FCN-8s and DeconvNet predict background only"
    shares = [per_image.background_share(run[f"counts/{method}"]) for method in ("fcn8s", "deconvnet")]
    assert shares == [100, pytest.approx(50, abs=2)]


def test_the_ablated_networks_counts_have_the_names_of_a_runs_own():
    """So that any measure of a run can be one of an ablation: here of 60 objects that both call right."""
    objects = {"objects/image": np.arange(60), "objects/label": np.full(60, 8)}
    run = objects | {"objects/majority/deconvnet": np.full(60, 8), "objects/contour/deconvnet": np.full(60, 0.7)}
    run |= {"counts/deconvnet": drawn(0.8, 60, 1)}
    ablations = {f"bilinear/{key}": value for key, value in run.items()}
    ablations["bilinear/objects/contour/deconvnet"] = np.full(60, 0.4)
    effect = contour_difference("deconvnet", "ablated/deconvnet")
    row = judged(effect, [run], ablations, needs=("bilinear",))
    assert row["effect"] == pytest.approx(30)
    assert judge.of_ablation("bilinear", ablations).keys() == run.keys()


@pytest.mark.reports
def test_claims_c6_c7_and_c8c_compare_with_their_ablations():
    """On the committed counts; the effects of C6 and C8c from the counts themselves."""
    ablations = per_image.load(REPORTS / "ablations.npz")
    runs: dict[str, dict] = {}
    for key, value in per_image.load(REPORTS / "seeds.npz").items():
        number, name = key.split("/", 1)
        runs.setdefault(number, {})[name] = value
    runs.pop("own", None)  # no training of its own, but what is made of the default and another
    stated = [claim for claim in statements.all_claims(0.15, 0.4, [1, 50, 100], 50) if claim.needs]
    rows = judge.claims_table(stated, list(runs.values()), ablations, 300, "d", 200, 0)
    assert [row["id"] for row in rows] == ["C6", "C7", "C8c"]
    known = rows if "bilinear/objects/contour/deconvnet" in ablations else rows[:2]
    assert all(row["seeds"] == len(runs) and row["against_one"] and row["verdict"] != "not run" for row in known)
    whole = np.mean([100 * per_image.mean_iou(run["counts/deconvnet"].sum(axis=0)) for run in runs.values()])
    alone = 100 * per_image.mean_iou(ablations["one_stage/counts/deconvnet"].sum(axis=0))
    assert rows[0]["effect"] == pytest.approx(whole - alone)
    if known is not rows:
        assert rows[2]["verdict"] == "not run"
        return
    of_both, label = ablations["bilinear/objects/contour/deconvnet"], ablations["bilinear/objects/label"]
    right = ablations["bilinear/objects/majority/deconvnet"] == label
    effects = []
    for run in runs.values():
        both = right & (run["objects/majority/deconvnet"] == label)
        effects.append(100 * np.nanmean((run["objects/contour/deconvnet"] - of_both)[both]))
    assert rows[2]["effect"] == pytest.approx(np.mean(effects))

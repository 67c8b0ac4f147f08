"""Each variant lacks one thing and nothing else; long runs are brought together only if they belong together."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.evaluation import per_image
from deconvnet.evaluation.methods import METHODS
from deconvnet.networks import build, variants, weights
from deconvnet.networks.deconvnet import DeconvNet
from deconvnet.pipeline import collect, repro
from deconvnet.training import ablations


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Smoke's settings, with the weights of a backbone in place."""
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


def test_every_variant_gets_as_many_updates(settings):
    both = settings.stage1.iterations + settings.stage2.iterations
    for variant in variants.VARIANTS:
        stages = ablations.schedule(variant, settings)
        assert sum(solver.iterations for _, solver in stages) == both
        assert [stage for stage, _ in stages] == ([2] if variant == "one_stage" else [1, 2])
    assert ablations.schedule("one_stage", settings)[0][1].lr == settings.stage2.lr


def test_a_solver_is_scaled_in_its_rate_alone(settings):
    short = ablations.with_lr_factor(settings.stage2, 0.1, 3)
    assert (short.lr, short.iterations) == (0.1 * settings.stage2.lr, 3)
    assert ablations.with_lr_factor(settings.stage2, 1) == settings.stage2


def test_every_variant_starts_from_the_same_backbone(settings):
    """Whatever stands in the decoder: the encoder's maps are those of the backbone, batch norm folded or not."""
    torch.manual_seed(1)
    x = 255 * torch.rand(2, 3, settings.network.size, settings.network.size)
    with torch.no_grad():
        maps = [variants.make_variant(v, settings).eval().encoder(x)[0][-1] for v in variants.VARIANTS]
    for other in maps[1:]:
        assert torch.allclose(maps[0], other, rtol=1e-3, atol=1e-4)
    assert maps[0].std() > 0


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


def test_signals_reach_the_end_without_batch_norm_as_he_et_al_draw(settings):
    """With std 0.01 the last map is a thousandth of what fc7 gives, or less; unpooling's zeros alone are a 32nd."""
    x = 255 * torch.rand(2, 3, settings.network.size, settings.network.size)
    kept = {}
    for variant in ("no_batch_norm", "no_batch_norm_he"):
        torch.manual_seed(0)
        net, sizes = variants.make_variant(variant, settings).eval(), []
        for part in (net.encoder.fc7, net.decoder[-1]):
            part.register_forward_hook(
                lambda module, inputs, out, sizes=sizes: sizes.append(out.square().mean().sqrt())
            )
        with torch.no_grad():
            net(x)
        kept[variant] = (sizes[1] / sizes[0]).item()
    assert kept["no_batch_norm"] < 1e-3
    assert 1e-3 < kept["no_batch_norm_he"] < 10


def test_he_draws_by_what_meets_in_an_output():
    torch.manual_seed(0)
    net = variants.he_initialise(DeconvNet(blocks=((32, 1), (64, 2)), fc=256, size=32, bn_eps=None))
    wanted = {"fc6_deconv.conv": 256, "decoder.0.deconv2_1.conv": 9 * 64, "decoder.1.deconv1_1.conv": 9 * 32}
    for name, inputs in wanted.items():
        assert net.get_submodule(name).weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.05), name
        assert not net.get_submodule(name).bias.any()
    assert net.score.weight.std().item() == pytest.approx((1 / 32) ** 0.5, rel=0.1)


def test_bilinear_ignores_where_the_maxima_stood(settings):
    """Moving a maximum inside its 2 × 2 cell changes switches and no pooled map: bilinear's output stays."""
    torch.manual_seed(0)
    plain, other = (
        variants.make_variant("one_stage", settings).eval(),
        variants.make_variant("bilinear", settings).eval(),
    )
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


def test_a_rate_that_diverges_is_never_chosen(settings, monkeypatch):
    def diverge(*arguments, **named):
        raise FloatingPointError

    class Batches:
        def like(self, *arguments):
            return self

    monkeypatch.setattr(ablations.loop, "train", diverge)
    assert ablations.try_lr_factor("bilinear", settings, 1.0, 2, Batches(), Batches()) == float("inf")


# What long runs leave


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "ROOT", tmp_path)
    monkeypatch.setattr(collect, "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(collect, "ABLATIONS", tmp_path / "data" / "ablations")
    return tmp_path


def put(folder, name, experiment, value, key="tally"):
    per_image.save(folder / f"{name}.npz", {f"{name}/{key}": np.array([value])})
    (folder / f"{name}.json").write_text(json.dumps({"experiment": experiment, "mean_iou": value}))


def test_ablations_are_collected(project):
    for value, name in enumerate(variants.VARIANTS):
        put(project / "data" / "ablations", name, "aa", value)
    collect.ablations()
    found = per_image.load(project / "reports" / "ablations.npz")
    assert {key: v.item() for key, v in found.items()} == {f"{v}/tally": i for i, v in enumerate(variants.VARIANTS)}
    record = json.loads((project / "reports" / "ablations.json").read_text())
    assert record["experiment"] == "aa"
    assert set(record["variants"]) == set(variants.VARIANTS)


def test_a_variant_that_was_not_trained_here_stays(project):
    folder = project / "data" / "ablations"
    put(folder, "one_stage", "aa", 1)
    put(folder, "bilinear", "aa", 2)
    collect.ablations()
    (folder / "one_stage.json").unlink()
    (folder / "one_stage.npz").unlink()
    put(folder, "bilinear", "aa", 3)
    collect.ablations()
    found = per_image.load(project / "reports" / "ablations.npz")
    assert {key: v.item() for key, v in found.items()} == {"one_stage/tally": 1, "bilinear/tally": 3}
    assert set(json.loads((project / "reports" / "ablations.json").read_text())["variants"]) == {
        "one_stage",
        "bilinear",
    }
    put(folder, "bilinear", "bb", 4)  # of other settings: nothing of the old ones may stay beside it
    collect.ablations()
    assert set(per_image.load(project / "reports" / "ablations.npz")) == {"bilinear/tally"}


def test_results_of_different_settings_are_not_mixed(project):
    put(project / "data" / "ablations", "bilinear", "aa", 1)
    put(project / "data" / "ablations", "one_stage", "bb", 2)
    with pytest.raises(UserError, match="different settings"):
        collect.ablations()
    assert not (project / "reports").exists()


def test_nothing_to_collect_says_what_to_do(project):
    with pytest.raises(UserError, match="make ablations"):
        collect.ablations()


def test_seeds_are_collected_with_their_tolerance(project):
    def metrics(value):
        return {method: {"mean_iou": value} for method in METHODS}

    reports = project / "reports"
    reports.mkdir()
    (reports / "metrics.json").write_text(json.dumps(metrics(0.2)))
    for number, value in (("1", 0.3), ("2", 0.4)):
        run = project / "runs" / f"icons-seed{number}"
        for name in collect.SAMPLES:
            per_image.save(run / "data" / "samples" / f"{name}.npz", {name: np.array([value])})
        (run / "reports").mkdir()
        (run / "reports" / "metrics.json").write_text(json.dumps(metrics(value)))
        (run / "params.yaml").write_text(params.dump(params.compose("icons")))
        collect.seed(number)
    collect.seeds()
    found = per_image.load(reports / "seeds.npz")
    assert set(found) == {f"{n}/{name}" for n in "12" for name in collect.SAMPLES}
    assert found["2/windows"].item() == 0.4
    written = json.loads((reports / "tolerance.json").read_text())["deconvnet"]["mean_iou"]
    assert written["values"] == [0.2, 0.3, 0.4]
    assert written["tolerance"] == pytest.approx(4.144 * 0.1 * (4 / 3) ** 0.5, rel=1e-3)  # t, deviation, mean of three


EXTRA_STAGES = """
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


def test_what_is_trained_apart_is_collected_each_time(tmp_path):
    """DVC runs no frozen stage, not even by force; and `collect` must be one, or `make repro` would train."""
    for folder in ("ablations", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "ablations" / "dvc.yaml").write_text(EXTRA_STAGES)
    script = "print(open('data/a').read() + open('data/b').read(), file=open('found', 'w'))"
    (tmp_path / "collect.py").write_text(script)
    repro.dvc(tmp_path, "init", "--no-scm", "-q")
    for text in ("one", "two"):
        (tmp_path / "source").write_text(text)
        assert repro.reproduce_extra(tmp_path, "ablations", ["train"]) == 0
        assert (tmp_path / "found").read_text() == f"{text}{text}\n"
    assert repro.dvc(tmp_path, "status", "-q", "ablations/dvc.yaml:collect") == 0
    (tmp_path / "collect.py").unlink()
    assert repro.reproduce_extra(tmp_path, "ablations", ["train"]) != 0

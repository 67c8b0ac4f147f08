"""The benchmarks compare what they say they compare; the committed page shows the committed numbers."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from deconvnet import DeconvNet
from deconvnet.config import machine, params
from deconvnet.config.paths import ROOT
from deconvnet.inference import aggregate
from deconvnet.training.loop import train

sys.path.insert(0, str(ROOT / "benchmarks"))
import measure
import outcome
import parts
import release

RATIOS = {
    "inference": ("vs_release", "vs_network"),
    "training": ("vs_resident_batch",),
    "crf": ("workers_speedup",),
    "proposals": ("workers_speedup",),
    "scores": ("megabytes_per_image",),
    "pipeline": ("vs_before",),
}


def test_the_releases_way_gives_the_same_map(monkeypatch):
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    torch.manual_seed(0)
    net = DeconvNet(classes=21, blocks=((4, 1), (4, 1)), fc=8, size=16, std=58).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.4)
    image = np.random.default_rng(0).integers(0, 256, (30, 44, 3), dtype=np.uint8)
    windows = np.array([[0, 0, 16, 16], [-6, 10, 14, 30], [20, -3, 52, 29], [5, 5, 12, 12]])
    found = release.score_windows(net, image, windows)
    assert found.std() > 0.01
    expected = aggregate.score_proposals(net, image, windows, 4).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_ratios_by_hand():
    found = measure.ratio([2.0, 4.0, 6.0], [1.0, 1.0, 2.0])
    assert found == {"median": 3.0, "lowest": 2.0, "highest": 4.0, "on": measure.here()["on"]}
    assert measure.ratio([1.0], [4.0], scale=2.0)["median"] == 0.5


def test_variants_take_turns_and_the_first_round_does_not_count():
    calls = []
    seconds = measure.side_by_side({name: lambda name=name: calls.append(name) for name in "ab"}, repeats=2)
    assert calls == list("ababab")
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_a_line_by_hand():
    found = parts.line([1.0, 2.0, 4.0], [0.5, 0.7, 1.1])
    assert (found["slope"], found["offset"], found["r2"]) == pytest.approx((0.2, 0.3, 1.0))


def test_what_was_not_measured_stays_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(outcome, "KEPT", tmp_path / "benchmarks.json")
    outcome.write(inference={"vs_release_bf16": 4.0, "vs_release_fp32": 2.0}, scores={"megabytes_per_image": 0.5})
    outcome.write(inference={"vs_release_fp32": 3.0})
    assert outcome.kept() == {
        "inference": {"vs_release_bf16": 4.0, "vs_release_fp32": 3.0},
        "scores": {"megabytes_per_image": 0.5},
    }


def test_parts_of_a_gpu_are_kept_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(outcome, "KEPT", tmp_path / "benchmarks.json")
    outcome.write(scores={"megabytes_per_image": 0.5})
    outcome.write(gpu={"paper_size": {"deconvnet tf32": {"hours": 2.0}, "fcn8s tf32": {"hours": 3.0}}})
    outcome.write(gpu={"paper_size": {"deconvnet tf32": {"hours": 1.0}}, "machine": {"torch": "2"}})
    assert outcome.kept() == {
        "scores": {"megabytes_per_image": 0.5},
        "gpu": {
            "paper_size": {"deconvnet tf32": {"hours": 1.0}, "fcn8s tf32": {"hours": 3.0}},
            "machine": {"torch": "2"},
        },
    }


def test_a_precision_lasts_as_long_as_it_is_asked_for(monkeypatch):
    monkeypatch.delenv("DECONVNET_PRECISION", raising=False)
    with measure.precision("tf32"):
        assert torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert machine.precision() == "32-true"


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_resident_batch_is_trained_as_train_would(monkeypatch, at_once):
    """One update by hand and one by `train` of the same batch end with the same weights."""
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    monkeypatch.setenv("DECONVNET_PARTS", str(at_once))
    settings = params.validate(params.compose("icons"), "icons").stage2
    solver = settings.model_copy(update={"iterations": 1, "batch": 4, "micro_batches": 2, "warmup": 0})
    batch, ends = (torch.rand(4, 3, 8, 8), torch.randint(3, (4, 8, 8))), []
    for way in (lambda net: parts.resident_updates(net, batch, solver, 1), lambda net: train(net, [batch], solver)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)).train()
        way(net)
        ends.append(net.state_dict())
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_the_committed_page_is_of_the_committed_numbers():
    result = json.loads(outcome.KEPT.read_text())
    for section, names in RATIOS.items():
        assert all(np.isfinite(result[section][name]) for name in names), section
    assert outcome.page(result) == outcome.KEPT.with_suffix(".md").read_text()

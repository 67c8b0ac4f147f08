"""What a run on VOC 2012 is said to cost, against numbers that can be worked out by hand."""

import pytest
import torch
from torch import nn

from deconvnet.config import machine, params
from deconvnet.pipeline import forecast, repro
from deconvnet.proposals import edges

PAPER = params.validate(params.compose("voc2012"), "voc2012")


def test_operations_of_a_layer_by_hand():
    """5 × 5 px, 3 → 2 channels, 3 × 3: 2 · 25 · 2 · 27 = 2,700 FLOP; the image needs no gradient: once back."""
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1))
    found = forecast.cost(net, 5, 5)
    assert (found.inference, found.training) == (2700, 5400)
    assert found.parameters == 4 * (2 * 27 + 2)
    assert found.activations == 4 * 2 * 25


def test_the_papers_network_and_its_sixty_thousand_updates():
    """196 GFLOP an image, counted by torch: at 1 TFLOP/s and 64 images an update, 20,000 take 70 hours."""
    found = forecast.forecast(PAPER, 1e12)
    assert found["stage1"] == pytest.approx(20_000 * 64 * 0.1963 / 3600, rel=0.01)
    assert found["stage2"] == pytest.approx(2 * found["stage1"])
    assert forecast.forecast(PAPER, 2e12)["fcn8s"] == pytest.approx(found["fcn8s"] / 2)
    assert found["device"] > 3 * 4 * 251_805_653 / 1e9  # weights, gradients, momentum
    assert found["host"] == pytest.approx(10_582 * 375 * 500 * 5 / 1e9)  # train_aug, dev in it


def test_memory_follows_the_parts_that_are_trained_at_once(monkeypatch):
    weights = 3 * 4 * 251_805_653 / 1e9
    activations = forecast.forecast(PAPER, 1e12)["device"] - weights
    monkeypatch.setattr(machine, "micro_batches_at_once", lambda of: of)
    assert forecast.forecast(PAPER, 1e12)["device"] - weights == pytest.approx(8 * activations)
    monkeypatch.setenv("DECONVNET_PRECISION", "bf16-mixed")
    assert forecast.forecast(PAPER, 1e12)["device"] - weights == pytest.approx(4 * activations)


def test_what_is_fetched_is_said_with_size_and_checksum(monkeypatch):
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    monkeypatch.setattr(forecast, "speed", lambda: 1e12)
    said = forecast.text(PAPER)
    for word in (
        "6cd6e144f989b92b3379bac3b3de84fd",
        "82b4d87ceb2ed10f6038a1cba92111cb",
        "397923af",
        "GB",
        "hours",
        "CPU",
    ):
        assert word in said
    own = PAPER.model_copy(update={"backbone": PAPER.backbone.model_copy(update={"source": "caffe", "path": "x"})})
    assert "397923af" not in forecast.text(own)


def test_it_is_said_before_voc2012_starts_and_for_no_other_profile(monkeypatch, capsys):
    monkeypatch.setattr(forecast, "text", lambda settings: f"forecast of {settings.profile}")
    monkeypatch.setattr(edges, "fetch_forest", lambda settings, folder: print("forest") or folder / "forest.gz")
    monkeypatch.setattr(repro, "prepare_apart", lambda settings: settings["proposals"]["forest"])
    monkeypatch.setattr(repro, "reproduce", lambda folder, arguments: print("DVC", folder) or 3)
    for profile in ("voc2012", "smoke"):
        monkeypatch.setattr("sys.argv", ["pipeline", "--profile", profile])
        with pytest.raises(SystemExit) as ended:
            repro.main()
        assert ended.value.code == 3
    forest = repro.DOWNLOADS / "forest.gz"
    assert capsys.readouterr().out == f"forecast of voc2012\nforest\nDVC {forest}\nDVC None\n"

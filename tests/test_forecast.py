"""The forecast of a run on VOC 2012, against numbers worked out by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from deconvnet.config import machine, params
from deconvnet.pipeline import forecast, repro
from deconvnet.proposals import edges

PAPER = params.validate(params.compose("voc2012"), "voc2012")


def test_cost_of_a_layer_by_hand():
    """5 × 5 px, 3 → 2 channels, 3 × 3 kernel: 2 · 25 · 2 · 27 = 2,700 FLOP, and as many for the weights' gradient."""
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1))
    found = forecast.cost(net, 5, 5)
    outputs, parameters = 4 * 2 * 25, 4 * (2 * 27 + 2)  # bytes
    assert found == {"inference": 2700, "training": 5400, "parameters": parameters, "outputs": outputs}


def test_the_papers_network_and_iterations():
    """196 GFLOP per image, counted by torch: 20,000 iterations of 64 images take 70 hours at 1 TFLOP/s."""
    found = forecast.forecast(PAPER, 1e12)
    assert found["stage1"] == pytest.approx(20_000 * 64 * 0.1963 / 3600, rel=0.01)
    assert found["stage2"] == pytest.approx(2 * found["stage1"])
    assert forecast.forecast(PAPER, 2e12)["fcn8s"] == pytest.approx(found["fcn8s"] / 2)
    assert found["device"] > 3 * 4 * 251_805_653 / 1e9  # weights, gradients, momentum
    assert found["host"] == pytest.approx(10_582 * 375 * 500 * 5 / 1e9)  # train_aug, of which dev is a part


def test_memory_depends_on_the_micro_batches_at_once(monkeypatch):
    weights = 3 * 4 * 251_805_653 / 1e9
    outputs = forecast.forecast(PAPER, 1e12)["device"] - weights
    monkeypatch.setattr(machine, "micro_batches_at_once", lambda total: total)
    assert forecast.forecast(PAPER, 1e12)["device"] - weights == pytest.approx(8 * outputs)
    monkeypatch.setenv("DECONVNET_PRECISION", "bf16-mixed")
    assert forecast.forecast(PAPER, 1e12)["device"] - weights == pytest.approx(4 * outputs)


def test_the_text_lists_downloads_with_their_checksums(monkeypatch):
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    monkeypatch.setattr(forecast, "speed", lambda: 1e12)
    text = forecast.text(PAPER)
    checksums = "6cd6e144f989b92b3379bac3b3de84fd", "82b4d87ceb2ed10f6038a1cba92111cb", "397923af"
    assert all(words in text for words in (*checksums, "this machine's CPU"))
    own = PAPER.model_copy(update={"backbone": PAPER.backbone.model_copy(update={"source": "caffe", "path": "x"})})
    assert "397923af" not in forecast.text(own)


def test_too_little_disk_is_said_before_the_downloads(monkeypatch):
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    monkeypatch.setattr(forecast, "speed", lambda: 1e12)
    for free, said in ((5e9, True), (1e15, False)):
        monkeypatch.setattr(forecast.shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        assert ("Only 5 GB are free" in forecast.text(PAPER)) == said


def test_only_voc2012_announces_its_cost_before_dvc_starts(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(forecast, "text", lambda settings: f"forecast of {settings.profile}")
    monkeypatch.setattr(edges, "fetch_forest", lambda settings, folder: print("forest") or folder / "forest.gz")
    monkeypatch.setattr(repro, "prepare_separate", lambda settings: print(settings["proposals"]["forest"]) or tmp_path)
    monkeypatch.setattr(repro, "reproduce", lambda folder, arguments: print("DVC") or 3)
    for profile in ("voc2012", "smoke"):
        monkeypatch.setattr("sys.argv", ["repro", "--profile", profile])
        with pytest.raises(SystemExit) as ended:
            repro.main()
        assert ended.value.code == 3
    forest = repro.DOWNLOADS / "forest.gz"
    assert capsys.readouterr().out == f"forecast of voc2012\nforest\n{forest}\nDVC\nNone\nDVC\n"

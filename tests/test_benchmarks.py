"""`make bench` compares what it says that it compares, and its page shows its numbers."""

import copy
import json
import os
import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

from deconvnet import DeconvNet
from deconvnet.config import machine, params, paths
from deconvnet.config.paths import ROOT
from deconvnet.data import icon_scenes, voc
from deconvnet.images import store
from deconvnet.inference import aggregate
from deconvnet.networks import weights
from deconvnet.utils.files import write_json

sys.path.insert(0, str(ROOT / "benchmarks"))
import bench
import measure
from page import page

COMMITTED = ROOT / "reports" / "benchmarks.json"
AIMS = {"5", "1.15", "1.8", "3", "0.05", "0.1", "1.10"}
SPREAD = {"median": 1.3125, "lowest": 1.1875, "highest": 1.4375}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """On a CPU, one round of everything, with precisions that any CPU computes, however slowly."""
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    monkeypatch.delenv("DECONVNET_PRECISION", raising=False)
    for name, value in {"GPU": False, "PHOTOGRAPH": (96, 72), "ROUNDS": 1, "TASKS": 1, "PROPOSALS": 3, "BATCH_SIZE": 2,
                        "ITERATIONS": 3, "SKIPPED": 1, "precisions": lambda: ["fp32", "bf16"]}.items():  # fmt: skip
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(measure, "MIN_SECONDS", 0)


def random_net() -> DeconvNet:
    torch.manual_seed(0)
    net = DeconvNet(classes=21, blocks=((4, 1), (4, 1)), fc=8, size=16, std=58).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.4)
    return net


def test_the_releases_way_gives_the_same_map():
    image = np.random.default_rng(0).integers(0, 256, (30, 44, 3), dtype=np.uint8)
    proposals = np.array([[0, 0, 16, 16], [-6, 10, 14, 30], [20, -3, 52, 29], [5, 5, 12, 12]])
    found = measure.score_as_released(random_net(), image, proposals)
    assert found.std() > 0.01
    expected = aggregate.score_proposals(random_net(), image, proposals, 4).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_the_release_scores_one_box_at_a_time_with_batch_norm():
    net, seen = random_net(), []
    net.encoder.blocks[0].conv1_1.bn.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    measure.score_as_released(net, np.zeros((30, 44, 3), np.uint8), np.array([[0, 0, 16, 16]] * 3))
    assert seen == [1, 1, 1]


def test_ratios_by_hand():
    found = measure.ratio([2.0, 4.0, 6.0], [1.0, 1.0, 2.0])
    assert found == {"median": 3.0, "lowest": 2.0, "highest": 4.0}


def test_ways_take_turns_and_the_first_round_does_not_count():
    calls = iter("abcdef")
    found = measure.in_turn({"one": lambda: next(calls), "other": lambda: next(calls)}, rounds=2)
    assert found == {"one": ["c", "e"], "other": ["d", "f"]}


def test_short_work_is_repeated(monkeypatch):
    now, lengths = [0.0], iter([0.25, 0.5, 0.75])
    monkeypatch.setattr(measure, "clock", lambda: now[0])
    monkeypatch.setattr(measure, "MIN_SECONDS", 1)
    assert measure.seconds(lambda: now.__setitem__(0, now[0] + next(lengths))) == 0.5


def test_a_precision_lasts_as_long_as_it_is_asked_for():
    with measure.precision("tf32"):
        assert torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert "DECONVNET_PRECISION" not in os.environ
    assert machine.precision() == "32-true"


def test_peak_memory_counts_what_is_freed_and_starts_anew():
    measure.peak_gigabytes()
    np.ones(10**8, np.uint8)  # freed at once
    first, second = measure.peak_gigabytes(), measure.peak_gigabytes()
    assert 0.08 < first - second < 0.15


def test_an_iteration_is_compared_with_one_on_a_preloaded_batch(monkeypatch, tmp_path):
    """By a clock that loading a batch moves by 2 and computing on it by 1."""
    now = [0]

    class Net(nn.Conv2d):
        def forward(self, x):
            now[0] += 1
            return super().forward(x)

    class Batches(list):
        def __getitem__(self, step):
            now[0] += 2
            return super().__getitem__(step)

    batch = torch.rand(4, 3, 8, 8), torch.randint(3, (4, 8, 8))
    icon_scenes.generate(tmp_path, train=1, dev=1, val=1, width=64, height=64)
    settings = params.validate(params.compose("smoke"), "smoke")
    solver = settings.stage2.model_copy(update={"batch_size": 4, "micro_batches": 1})
    monkeypatch.setattr(bench, "clock", lambda: now[0])
    monkeypatch.setattr(bench, "MAKE", {"deconvnet": lambda settings: Net(3, 3, 1)})
    monkeypatch.setattr(bench.examples, "crop_batches", lambda *_: Batches([batch] * 3))
    found = bench.training("deconvnet", settings, solver, tmp_path)
    assert (found["vs_resident_batch"], found["seconds"], found["batch_size"]) == (3, 3, 4)


def test_points_lost_by_hand(monkeypatch, tmp_path):
    """Class 2 wins everywhere by 0.01, less than scores are stored to; bfloat16 gives class 1."""
    icon_scenes.generate(tmp_path, train=1, dev=1, val=1, width=64, height=64)
    labels = np.full((64, 64), 2, np.uint8)
    labels[:16] = 1  # a quarter
    voc.save_mask(voc.labels_path(tmp_path, "val_00000"), labels)

    def score(ready, image, boxes, settings):
        maps = np.zeros((2, 21, 64, 64), np.float32)
        maps[:, 1], maps[:, 2] = 1, 1.01
        if ready["deconvnet"] == "bf16-mixed":
            maps[:, 1] = 2
        return dict(zip(("deconvnet", "fcn8s"), maps, strict=True))

    monkeypatch.setattr(bench, "for_inference", lambda net: os.environ["DECONVNET_PRECISION"])
    monkeypatch.setattr(bench, "score", score)
    monkeypatch.setattr(bench.crf, "refine", lambda image, probabilities, *kernel: probabilities)
    nets, settings = dict.fromkeys(("deconvnet", "fcn8s")), params.validate(params.compose("smoke"), "smoke")
    found = bench.points_lost(nets, {"deconvnet": None}, tmp_path, {"val_00000": None}, settings)
    # Of the IoU of classes 1 and 2: 0 and 3/4 become 1/4 and 0.
    assert found["stored"] == pytest.approx(dict.fromkeys(("edeconvnet", "deconvnet_crf", "most"), 25.0))
    methods = "deconvnet", "fcn8s", "edeconvnet", "deconvnet_crf", "most"
    assert found["bf16"] == pytest.approx(dict.fromkeys(methods, 25.0))


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """What the benchmarks use of what `make repro` leaves, with random weights."""
    settings = params.validate(params.compose("smoke"), "smoke")
    icon_scenes.generate(tmp_path / "voc", train=1, dev=1, val=2, width=64, height=48)
    for name in ("MODELS", "REPORTS", "VOC"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(store, "PROPOSALS", tmp_path)
    names = voc.read_list(paths.VOC, "val")
    store.save_proposals({name: np.array([[4, 4, 40, 40, 1]], np.float32) for name in names}, "val")
    for model, make in bench.MAKE.items():
        weights.save(make(settings), model, paths.MODELS)
    load = weights.load
    monkeypatch.setattr(weights, "load", lambda net, name: load(net, name, paths.MODELS))
    chosen = {"chosen": settings.crf.candidates[0].model_dump()}
    write_json(paths.REPORTS / "crf.json", {"deconvnet": chosen, "edeconvnet": chosen})
    return settings


def test_every_part_runs(monkeypatch, trained):
    monkeypatch.setenv("DECONVNET_CORES", "2")
    found = bench.run(trained, trained, compare_paper=True)
    for part, ratio in {"inference": "vs_release", "training": "vs_resident_batch", "cores": "workers_speedup",
                        "proposals": "workers_speedup", "crf": "workers_speedup",
                        "scores": "megabytes_per_image"}.items():  # fmt: skip
        assert found[part][ratio] > 0
    assert found["inference"]["vs_network"] == found["inference"]["vs_network_bf16"]["median"]
    assert found["crf"]["workers"] == 2
    assert {*found["points_lost"]} == {"stored", "bf16"}
    assert {*found["points_lost"]["stored"]} == {"edeconvnet", "deconvnet_crf", "edeconvnet_crf", "most"}
    assert all(row["vs_resident_batch"] > 0 for row in found["paper_size"].values())
    text = page(json.loads(json.dumps(found)))
    assert text.count("inference in ") == 4
    assert text.count("training iteration of ") == 9
    assert text.count("lost by") == 2
    assert "MB" in text


def test_a_fresh_clone_is_measured_without_models(monkeypatch, trained, tmp_path):
    monkeypatch.setattr(paths, "MODELS", tmp_path / "none")
    monkeypatch.setattr(bench, "workers", lambda *_: {})
    found = bench.run(trained, trained)
    assert {"scores", "points_lost"}.isdisjoint(found)
    assert {*found["paper_size"]["fcn8s"]} == {"precision", "batch_size", "seconds", "gigabytes"}


def made_up() -> dict:
    inference = {f"{ratio}_{name}": SPREAD for ratio in ("vs_release", "vs_network") for name in ("fp32", "bf16")}
    inference |= {"proposals": 17, "batch_size": 9, "milliseconds_per_proposal": {"bf16": 0.4375, "release": 77.5}}
    workers = {"workers": 7, "spread": SPREAD}
    training = {"precision": "fp32", "batch_size": 33, "seconds": 2.25, "gigabytes": 4.75, "spread": SPREAD}
    return {
        "machine": {"device": "some processor", "commit": "abcdef", "threads": 13, "torch": "11.12", "load": 0.84375},
        "rounds": 6, "photograph": [501, 376], "inference": inference, "cores": workers, "proposals": workers,
        "crf": workers, "training": training, "scores": {"megabytes_per_image": 0.5625},
        "points_lost": {"stored": {"most": 0.0625}, "bf16": {"most": -0.28125}},
        "paper_size": {"fcn8s": {"precision": "bf16", "batch_size": 21, "seconds": 151.5, "gigabytes": 6.375}},
    }  # fmt: skip


def test_no_number_but_the_aims_is_typed_in_the_page():
    def other(value):
        if isinstance(value, dict):
            return {key: other(item) for key, item in value.items()}
        if isinstance(value, list):
            return [other(item) for item in value]
        return value if isinstance(value, str) else 10 * value + 8

    result = made_up()
    changed = other(copy.deepcopy(result))
    changed["machine"]["torch"] = "13.14"
    first, second = ({*re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)", page(r))} for r in (result, changed))
    assert first & second == AIMS


def test_the_page_of_made_up_numbers():
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page(made_up()).splitlines() if "|" in line]
    found = {what: rest for what, *rest in lines}
    spread = "1.31 (1.19–1.44)"
    assert found["inference in bf16: times as fast as the release's way"] == [spread, "≥ 5"]
    assert found["inference in fp32: times as fast as the release's way"] == [spread, ""]
    assert found["arithmetic alone: 7 workers, times as fast as one"] == [spread, ""]
    assert found["dense CRF: 7 workers, times as fast as one"] == [spread, "≥ 1.8"]
    assert found["points of mean IoU on val lost by bfloat16"] == ["-0.281", "≤ 0.1"]
    assert found["training iteration of the paper's fcn8s, 21 images in bf16: GB"] == ["6.4", ""]
    assert "training iteration of the paper's fcn8s, 21 images in bf16: time against a preloaded batch" not in found
    for said in ("at commit abcdef, on some processor", "Busy cores distort", "load average was 0.84"):
        assert said in page(made_up())


def test_the_program_writes_the_page_of_the_numbers_in_the_file(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    result = made_up()
    result["training"]["seconds"] = 0.123454999  # the file has five decimals
    monkeypatch.setattr(bench, "run", lambda default, paper: result)
    bench.main()
    written = json.loads((tmp_path / "benchmarks.json").read_text())
    assert written["training"]["seconds"] == 0.12345
    assert (tmp_path / "benchmarks.md").read_text() == page(written)


@pytest.mark.skipif(not COMMITTED.is_file(), reason="make bench has not run here")
def test_the_committed_page_is_of_the_committed_numbers():
    assert page(json.loads(COMMITTED.read_text())) == COMMITTED.with_suffix(".md").read_text()

"""Settings: the paper's numbers, profiles that hold together, and errors that name the key and the file."""

import runpy
from copy import deepcopy
from functools import reduce

import pytest
import torch
import yaml

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.config.paths import PARAMS, ROOT
from deconvnet.networks import build, caffe, deconvnet
from deconvnet.training import loop
from deconvnet.training.solver import lr_factor

PROFILES = sorted(path.stem for path in (ROOT / "conf").glob("*.yaml"))

PAPER = {  # "release" where the article and the authors' code differ
    "proposals.boxes": 2000,
    "proposals.edges": "forest",
    "network.blocks": [[64, 2], [128, 2], [256, 3], [512, 3], [512, 3]],
    "network.fc": 4096,
    "network.size": 224,
    "network.bn_eps": 1e-9,
    "network.pixel_std": 1,
    "backbone.source": "vgg16",
    "stage1.optimizer": "sgd",
    "stage1.lr": 0.01,
    "stage1.momentum": 0.9,
    "stage1.weight_decay": 0.0005,
    "stage1.weight_decay_scaling": "effective",
    "stage1.bias_lr_factor": 2,
    "stage1.bias_decay": False,
    "stage1.encoder_lr_factor": 1,
    "stage1.schedule": "step",
    "stage1.step": 9000,
    "stage1.warmup": 0,
    "stage1.iterations": 20000,
    "stage1.batch_size": 64,
    "stage1.micro_batches": 8,
    "stage1.bn_batches": 501,
    "stage1.bn_batch_size": 28,
    "stage1.context": 1.2,
    "stage1.square_boxes": True,
    "stage1.resize_before_crop": 250,
    "stage1.class_balance": True,
    "stage2.optimizer": "sgd",
    "stage2.lr": 0.01,
    "stage2.momentum": 0.9,
    "stage2.weight_decay": 0.0005,
    "stage2.weight_decay_scaling": "effective",
    "stage2.bias_lr_factor": 2,
    "stage2.bias_decay": False,
    "stage2.encoder_lr_factor": 1,
    "stage2.schedule": "step",
    "stage2.step": 10000,
    "stage2.warmup": 0,
    "stage2.iterations": 40000,
    "stage2.batch_size": 64,
    "stage2.micro_batches": 8,
    "stage2.bn_batches": 501,
    "stage2.bn_batch_size": 28,
    "stage2.context": 1.2,
    "stage2.square_boxes": True,
    "stage2.resize_before_crop": None,
    "stage2.min_iou": 0.5,
    "stage2.class_balance": True,
    "stage2.background_fraction": 0,
    "fcn.padding": "fc6",
    "fcn.batch_norm": False,
    "fcn.dropout": 0.5,
    "inference.windows": 50,
    "inference.context": 1.2,
    "inference.square_boxes": True,
    "inference.min_side": 112,
    "inference.antialias": False,
    "ensemble.rule": "mean",
    "crf.candidates": [
        {"gaussian_weight": 3, "gaussian_xy": 3, "bilateral_weight": 5, "bilateral_xy": 20, "bilateral_rgb": 3}
    ],
    "crf.steps": 10,
    "crf.normalise": False,
}


def icons():
    return params.compose("icons")


def refuse(settings):
    """The message that unsound settings are refused with."""
    with pytest.raises(UserError) as error:
        params.validate(settings, "params.yaml")
    return str(error.value)


# Profiles


def test_params_yaml_is_the_composed_default():
    assert PARAMS.read_text() == params.dump(icons())


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_command_writes_params_yaml_or_ends_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["params", "icons"])
    runpy.run_module("deconvnet.config.params", run_name="__main__")
    assert capsys.readouterr().out == PARAMS.read_text()
    monkeypatch.setattr("sys.argv", ["params", "nonsense"])
    with pytest.raises(SystemExit, match="no profile 'nonsense'"):
        runpy.run_module("deconvnet.config.params", run_name="__main__")


def test_constants_of_the_paper_that_no_profile_changes():
    assert deconvnet.MEAN_RGB == (122.675, 116.669, 104.008)
    assert caffe.INFERENCE_MEAN_RGB == (122.67891434, 116.66876762, 104.00698793)
    settings = params.validate(params.compose("voc2012"), "voc2012")
    drops = {9000: 0.1, 18000: 0.01}
    assert {step: lr_factor(step, settings.stage1) for step in drops} == pytest.approx(drops)
    assert lr_factor(8999, settings.stage1) == 1
    assert settings.inference.fcn_canvas == 500
    torch.manual_seed(0)
    net = deconvnet.DeconvNet(blocks=((2, 1),) * 5, fc=64, size=32)
    shifts = [m.bias[0].item() for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert shifts == pytest.approx([0.001] * len(shifts))
    assert float(net.fc6_deconv.conv.weight.detach().std()) == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_sound(profile):
    settings = params.validate(params.compose(profile), profile)
    assert settings.profile == profile
    assert params.validate(yaml.safe_load(params.dump(params.compose(profile))), profile) == settings
    # A size that the poolings divide, and no part of a batch without an image.
    assert settings.network.size % 2 ** len(settings.network.blocks) == 0
    for solver in (settings.backbone, settings.stage1, settings.stage2, settings.fcn):
        assert solver.batch_size % solver.micro_batches == 0
        assert (getattr(solver, "resize_before_crop", None) or settings.network.size) >= settings.network.size
    assert settings.stage2.min_iou is not None


@pytest.mark.parametrize(("key", "value"), PAPER.items())
def test_voc2012_holds_the_papers_settings(key, value):
    found = reduce(dict.__getitem__, key.split("."), params.compose("voc2012"))
    assert found == value
    assert isinstance(found, bool) == isinstance(value, bool)


def test_a_profile_departs_only_where_it_says_so():
    paper, smaller = params.compose("voc2012"), icons()
    departures = params.read_yaml(ROOT / "conf" / "icons.yaml")
    for section, values in paper.items():
        if section != "profile":
            assert smaller[section] == values | departures.get(section, {})


def test_inheritance_reaches_through_two_profiles(tmp_path):
    (tmp_path / "a.yaml").write_text("x: {one: 1, two: 2, list: [1, 2]}\ny: 3")
    (tmp_path / "b.yaml").write_text("inherits: a\nx: {two: 20}")
    (tmp_path / "c.yaml").write_text("inherits: b\nx: {list: [9]}\ny: null")
    assert params.compose("c", tmp_path) == {"x": {"one": 1, "two": 20, "list": [9]}, "y": None, "profile": "c"}
    assert params.compose("a", tmp_path)["x"]["two"] == 2


# Errors


def test_an_unknown_profile_is_named_with_those_there_are():
    with pytest.raises(UserError, match=r"no profile 'imagenet'. Known: .*icons.*voc2012"):
        params.compose("imagenet")


def test_unknown_keys_are_named():
    settings = icons()
    settings["stage1"] = settings["stage1"] | {"learning_rate": 1}
    assert "stage1.learning_rate" in refuse(settings)
    assert "weights" in refuse(icons() | {"weights": {}})


def test_missing_keys_are_named():
    settings = deepcopy(icons())
    del settings["network"]["fc"], settings["crf"]
    message = refuse(settings)
    assert "2 wrong setting(s)" in message
    assert "network.fc" in message
    assert "crf: field required" in message
    assert "params.yaml" in message


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("stage1", "lr", "fast"),
        ("stage1", "lr", 0),
        ("stage1", "iterations", 1.5),
        ("stage1", "iterations", -1),
        ("stage1", "optimizer", "lion"),
        ("stage1", "momentum", 1.1),
        ("stage2", "square_boxes", "perhaps"),
        ("network", "blocks", [[64, 0]]),
        ("network", "size", None),
        ("crf", "candidates", []),
        ("ensemble", "rule", "median"),
        ("inference", "min_side", -1),
    ],
)
def test_wrong_values_are_named(section, key, value):
    settings = deepcopy(icons())
    settings[section][key] = value
    assert f"{section}.{key}" in refuse(settings)


def test_a_section_that_is_no_mapping_is_named():
    assert "network" in refuse(icons() | {"network": 3})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"- 1\n- 2\n", "not list"),
        (b"", "not NoneType"),
        (b"just text", "not str"),
        (b"a: [1\n", "not valid YAML"),
        (b"\xff\xfe\x00\x80junk", "not valid YAML"),
        (bytes(range(1, 128)), "not valid YAML"),
    ],
)
def test_files_that_hold_no_settings_are_named(tmp_path, content, reason):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as error:
        params.load(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.yaml does not exist"):
        params.load(tmp_path / "nothing.yaml")


def test_settings_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="frozen"):
        params.load().stage1.lr = 1


# Fair comparison


def flops(make, solver, height, width):
    """FLOPs of the whole training, counted on shapes alone."""
    with torch.device("meta"):
        net = make(params.load())
        batch = (
            torch.zeros(solver.batch_size, 3, height, width),
            torch.zeros(solver.batch_size, height, width, dtype=torch.long),
        )
    return solver.iterations * loop.flops_per_iteration(net, [batch])


def test_both_networks_train_with_the_same_compute():
    settings = params.load()
    size, cell = settings.network.size, 2 ** len(settings.network.blocks)
    stages = sum(flops(build.make_deconvnet, s, size, size) for s in (settings.stage1, settings.stage2))
    height, width = (side + -side % cell for side in (settings.icons.height, settings.icons.width))
    assert flops(build.make_fcn, settings.fcn, height, width) == pytest.approx(stages, rel=0.02)

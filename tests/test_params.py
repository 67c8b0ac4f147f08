"""Settings: the paper's numbers, valid profiles, and errors that name the key and the file."""

import runpy

import pytest
import torch
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from test_validate import random_files, refused

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.config.paths import PARAMS, ROOT
from deconvnet.config.schema import SOLVERS, Params, Solver
from deconvnet.networks import build, caffe, deconvnet
from deconvnet.training import loop
from deconvnet.training.solver import lr_factor

PROFILES = sorted(path.stem for path in (ROOT / "conf").glob("*.yaml"))

# What the article and the authors' code state; where they differ, the code.
PAPER = """
proposals: {max_boxes: 2000, edges: forest}
network: {blocks: [[64, 2], [128, 2], [256, 3], [512, 3], [512, 3]], fc: 4096, size: 224, bn_eps: 1.0e-9, pixel_std: 1}
backbone: {source: vgg16}
stage1: &crops
  {optimizer: sgd, lr: 0.01, momentum: 0.9, weight_decay: 0.0005, weight_decay_scaling: caffe, bias_lr_factor: 2,
   bias_decay: false, encoder_lr_factor: 1, schedule: step, step_size: 9000, warmup: 0, iterations: 20000,
   batch_size: 64, micro_batches: 8, bn_batches: 501, bn_batch_size: 28, context: 1.2, square_boxes: true,
   resize_before_crop: 250, class_balance: true}
stage2:
  <<: *crops
  step_size: 10000
  iterations: 40000
  resize_before_crop: null
  min_iou: 0.5
  background_fraction: 0
fcn: {padding: fc6, batch_norm: false, dropout: 0.5}
inference: {num_proposals: 50, context: 1.2, square_boxes: true, min_side: 112, antialias: false, fcn_canvas: 500}
ensemble: {rule: mean}
crf:
  candidates:
    - {gaussian_weight: 3, gaussian_xy: 3, bilateral_weight: 5, bilateral_xy: 20, bilateral_rgb: 3}
  iterations: 10
  normalise: false
"""


def icons():
    return params.compose("icons")


def refuse(settings):
    """The message of the error that wrong settings raise."""
    with pytest.raises(UserError) as error:
        params.validate(settings, "params.yaml")
    return str(error.value)


# Profiles


def test_params_yaml_is_the_composed_default():
    assert PARAMS.read_text() == params.dump(icons())


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_command_writes_params_yaml_or_prints_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["params", "icons"])
    runpy.run_module("deconvnet.config.params", run_name="__main__")
    assert capsys.readouterr().out == PARAMS.read_text()
    monkeypatch.setattr("sys.argv", ["params", "nonsense"])
    with pytest.raises(SystemExit, match="no profile 'nonsense'"):
        runpy.run_module("deconvnet.config.params", run_name="__main__")


def test_the_papers_constants_in_the_code():
    assert deconvnet.MEAN_RGB == (122.675, 116.669, 104.008)
    assert caffe.INFERENCE_MEAN_RGB == (122.67891434, 116.66876762, 104.00698793)
    settings = params.validate(params.compose("voc2012"), "voc2012")
    drops = {8999: 1, 9000: 0.1, 18000: 0.01}
    assert {step: lr_factor(step, settings.stage1) for step in drops} == pytest.approx(drops)
    torch.manual_seed(0)
    net = deconvnet.DeconvNet(blocks=((2, 1),) * 5, fc=64, size=32)
    shifts = [m.bias[0].item() for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert shifts == pytest.approx([0.001] * len(shifts))
    assert float(net.fc6_deconv.conv.weight.detach().std()) == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid(profile):
    settings = params.validate(params.compose(profile), profile)
    assert settings.profile == profile
    assert params.validate(yaml.safe_load(params.dump(params.compose(profile))), profile) == settings
    assert settings.network.size % 2 ** len(settings.network.blocks) == 0  # each block ends with a pooling
    assert settings.stage2.min_iou is not None
    assert settings.stage2.negatives_among is not None


def test_voc2012_holds_the_papers_settings():
    paper, found = yaml.safe_load(PAPER), params.compose("voc2012")
    assert {section: {key: found[section][key] for key in keys} for section, keys in paper.items()} == paper


def test_solvers_are_the_sections_that_train():
    trained = {name for name, field in Params.model_fields.items() if issubclass(field.annotation, Solver)}
    assert set(SOLVERS) == trained


def test_quick_is_the_default_with_a_quarter_of_its_iterations():
    quick, default = params.compose("quick"), icons()
    for solver in SOLVERS:
        for key in {"iterations", "proposal_iterations"} & set(default[solver]):
            assert quick[solver].pop(key) == pytest.approx(default[solver].pop(key) / 4, abs=0.5)
        assert quick[solver].pop("seed") == params.compose("voc2012")[solver]["seed"] != default[solver].pop("seed")
    assert quick | {"profile": "icons"} == default


def test_a_profile_inherits_through_another(tmp_path):
    (tmp_path / "a.yaml").write_text("x: {one: 1, two: 2, list: [1, 2]}\ny: 3")
    (tmp_path / "b.yaml").write_text("inherits: a\nx: {two: 20}")
    (tmp_path / "c.yaml").write_text("inherits: b\nx: {list: [9]}\ny: null")
    assert params.compose("c", tmp_path) == {"x": {"one": 1, "two": 20, "list": [9]}, "y": None, "profile": "c"}
    assert params.compose("a", tmp_path)["x"]["two"] == 2


# Errors


def test_the_error_for_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(UserError, match=r"no profile 'imagenet'. Known: .*icons.*voc2012"):
        params.compose("imagenet")


def test_unknown_and_missing_keys_are_named():
    settings = icons() | {"weight": {}}
    settings["stage1"]["learning_rate"] = 1
    del settings["network"]["fc"], settings["crf"]
    message = refuse(settings)
    assert message.startswith("params.yaml has 4 wrong setting(s)")
    for problem in (
        "stage1.learning_rate: extra",
        "weight: extra",
        "network.fc: field required",
        "crf: field required",
    ):
        assert problem in message


WRONG = """
data: 3
stage1: {lr: fast, iterations: 1.5, optimizer: lion, momentum: 1.1}
stage2: {lr: 0, iterations: -1, square_boxes: perhaps}
network: {blocks: [[64, 0]], size: null}
crf: {candidates: []}
ensemble: {rule: median}
inference: {min_side: -1}
"""


def test_all_wrong_values_are_named():
    wrong = yaml.safe_load(WRONG)
    message = refuse(params.merge(icons(), wrong))
    assert message.startswith("params.yaml has 13 wrong setting(s): data: ")
    assert all(f"; {section}.{key}" in message for section, keys in wrong.items() if section != "data" for key in keys)


@pytest.mark.parametrize(
    ("section", "values", "problem"),
    [
        ("fcn", {"batch_size": 30, "micro_batches": 4}, "fcn.batch_size 30 is not a multiple of fcn.micro_batches 4"),
        ("stage2", {"resize_before_crop": 63}, "stage2.resize_before_crop 63 is smaller than network.size 64"),
        ("backbone", {"source": "caffe"}, "backbone: value error, sources caffe and file need a path"),
        ("backbone", {"path": "vgg.caffemodel"}, "backbone: value error, sources caffe and file need a path"),
        ("proposals", {"edges": "forest"}, "edges forest needs forest, a path or an address"),
        ("weights", {"fcn8s": {"source": "caffe", "path": None}}, "weights.fcn8s: value error, source caffe needs a"),
        ("network", {"size": 72}, "size 72 is not a multiple of 32"),
        ("stage2", {"min_iou": None}, "stage2 needs min_iou and negatives_among"),
        ("stage2", {"negatives_among": None}, "stage2 needs min_iou and negatives_among"),
        ("fcn", {"batch_norm": False}, "batch norm, which fcn.batch_norm false would drop"),
    ],
)
def test_values_that_do_not_fit_together_are_named(section, values, problem):
    assert problem in refuse(params.merge(icons(), {section: values}))


@pytest.mark.parametrize(
    ("reason", "contents"),
    [
        ("not list", [b"- 1\n- 2\n"]),
        ("not NoneType", [b""]),
        ("not str", [b"just text"]),
        ("not valid YAML", [b"a: [1\n", b"\xff\xfe\x00\x80", bytes(range(1, 128)), b"[" * 1000]),
        ("not valid YAML", [b"a: 2001-99-99", b"a: 0x_", b"a: !!bool x", b"a: !!timestamp x"]),
    ],
)
def test_files_without_settings_are_named(tmp_path, contents, reason):
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError, match=r"params\.yaml does not exist"):
        params.load(path)
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path}.* {reason}"):
            params.load(path)


def test_settings_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="frozen"):
        params.load().stage1.lr = 1


DEFAULT = icons()
KEYS = [(section, key) for section, values in DEFAULT.items() if section != "profile" for key in values]
VALUES = st.sampled_from([DEFAULT[section][key] for section, key in KEYS]) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@random_files
@given(st.sampled_from(KEYS), VALUES)
@example(("icons", "train"), 0)
@example(("stage1", "micro_batches"), 10**30)
def test_random_values(tmp_path_factory, place, value):
    """Settings with any value of one key are accepted or refused, and a file of accepted ones is accepted too."""
    section, key = place
    changed = DEFAULT | {section: DEFAULT[section] | {key: value}}
    accepted = not refused(params.validate, changed, "params.yaml")
    assert refused(params.validate, changed | {"unknown": value}, "params.yaml")
    assert refused(params.validate, changed | {section: value}, "params.yaml")
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_text(yaml.safe_dump(changed))
    if accepted:
        assert not refused(params.load, path)


# Fair comparison


def flops(make, solver, height, width):
    """Operations of the whole training, counted without computing anything."""
    with torch.device("meta"):
        images = torch.zeros(solver.batch_size, 3, height, width)
        labels = torch.zeros(solver.batch_size, height, width, dtype=torch.long)
        return solver.iterations * loop.flops_per_iteration(make(params.load()), [(images, labels)])


def test_both_networks_train_with_the_same_compute():
    settings = params.load()
    size, cell = settings.network.size, 2 ** len(settings.network.blocks)
    stages = sum(flops(build.make_deconvnet, s, size, size) for s in (settings.stage1, settings.stage2))
    height, width = (side + -side % cell for side in (settings.icons.height, settings.icons.width))
    assert flops(build.make_fcn, settings.fcn, height, width) == pytest.approx(stages, rel=0.02)

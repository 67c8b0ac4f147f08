"""VGG-16 from a file: the same network whatever its channel order, and errors that name what does not fit."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from test_networks import SmallVgg
from torch import nn
from torch.nn import functional as F

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.networks import build, vgg_file, weights
from deconvnet.networks.deconvnet import Encoder
from deconvnet.pipeline import preflight
from deconvnet.training import recipes

SMALL = ((2, 1), (3, 2))  # the blocks of SmallVgg
MEAN_BGR = (103.939, 116.779, 123.68)
VGG_SMALL = {"blocks": [[64, 2], [128, 2], [256, 3], [512, 3], [512, 3]], "fc": 1024, "size": 96}


def small_encoder(fc=5, bn_eps=None, std=58.0):
    return Encoder(SMALL, fc, fc_kernel=2, bn_eps=bn_eps, std=std)


def tensors_of_small(fc=None):
    """Random weights of the convolutions of SMALL, and of fc6 and fc7 of the width `fc` as convolutions."""
    torch.manual_seed(0)
    shapes = {"conv1_1": (2, 3, 3, 3), "conv2_1": (3, 2, 3, 3), "conv2_2": (3, 3, 3, 3)}
    shapes |= {"fc6": (fc, 3, 2, 2), "fc7": (fc, fc, 1, 1)} if fc else {}
    tensors = {f"{name}.weight": torch.randn(shape) / 10 for name, shape in shapes.items()}
    return tensors | {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}


def write(path, tensors):
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def refuse(path, encoder=None):
    with pytest.raises(UserError) as error:
        vgg_file.vgg_state(encoder or small_encoder(), path, "BGR", MEAN_BGR)
    return str(error.value)


# Channel order


@pytest.mark.parametrize("name", ["vgg.npz", "vgg.safetensors"])
@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_the_first_layer_sees_pixels_in_the_files_order_less_its_mean(tmp_path, name, order):
    tensors, encoder = tensors_of_small(), small_encoder()
    path = write(tmp_path / name, tensors)
    encoder.load_state_dict(vgg_file.vgg_state(encoder, path, order, MEAN_BGR), strict=False)
    image = 255 * torch.rand(2, 3, 8, 8)
    seen = (image.flip(1) if order == "BGR" else image) - torch.tensor(MEAN_BGR).view(1, 3, 1, 1)
    layer = [tensors["conv1_1.weight"], tensors["conv1_1.bias"]]
    expected = F.max_pool2d(F.relu(F.conv2d(seen, *layer, padding=1)), 2)
    (pool, _), _ = encoder(image)
    torch.testing.assert_close(pool, expected, rtol=1e-5, atol=1e-4)  # values of about 50
    (swapped, _), _ = encoder(image.flip(1))
    assert (swapped - expected).abs().max() > 1


@pytest.mark.parametrize("matrices", [True, False])
def test_a_file_gives_the_features_of_torchvisions_network(tmp_path, matrices):
    """Its weights, which expect (RGB / 255 - m) / s, written as a BGR file that expects BGR - mean."""
    torch.manual_seed(0)
    source = SmallVgg().eval()
    for parameter in source.parameters():
        nn.init.normal_(parameter, std=0.5)
    theirs, ours = small_encoder(), small_encoder()
    theirs.load_state_dict(weights.vgg16_state(theirs, source), strict=True)

    layers = [m for m in [*source.features, *source.classifier] if isinstance(m, nn.Conv2d | nn.Linear)]
    tensors = {}
    for name, layer in zip(("conv1_1", "conv2_1", "conv2_2", "fc6", "fc7"), layers, strict=True):
        tensors |= {f"{name}.weight": layer.weight.detach(), f"{name}.bias": layer.bias.detach()}
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    tensors["conv1_1.weight"] = (tensors["conv1_1.weight"] / (255 * std)).flip(1)
    if not matrices:
        tensors["fc6.weight"] = tensors["fc6.weight"].reshape(5, 3, 2, 2)
    tensors["fc8.weight"] = torch.ones(7, 5)  # a classifier, of no use here
    mean = [255 * m for m in (0.406, 0.456, 0.485)]
    state = vgg_file.vgg_state(ours, write(tmp_path / "vgg.npz", tensors), "BGR", mean)
    ours.load_state_dict(state, strict=True)

    image = 255 * torch.rand(2, 3, 8, 8)
    found, expected = (e.fc7(e.fc6(e(image)[0][-1])) for e in (ours, theirs))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# What is taken from the file


def test_half_precision_becomes_single_and_batch_norm_stays_as_it_starts(tmp_path):
    tensors = {name: tensor.half() for name, tensor in tensors_of_small().items()}
    encoder = small_encoder(bn_eps=1e-9, std=2.0)
    state = vgg_file.vgg_state(encoder, write(tmp_path / "vgg.npz", tensors), "RGB", MEAN_BGR)
    kinds = {key.split(".")[-2] for key in state if key != "mean"}
    assert kinds == {"conv"}
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert torch.equal(state["blocks.1.conv2_2.conv.bias"], tensors["conv2_2.bias"].float())
    assert torch.equal(state["blocks.0.conv1_1.conv.weight"], 2 * tensors["conv1_1.weight"].float())


def without(tensors, *names):
    return {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.mark.parametrize(
    ("tensors", "fc"),
    [
        (tensors_of_small(), None),
        (tensors_of_small(5), 5),
        (tensors_of_small(4), None),  # of another width
        (without(tensors_of_small(5), "fc6.weight", "fc6.bias"), None),  # fc7 without the fc6 that it expects
    ],
)
def test_fc6_and_fc7_are_taken_together_or_not_at_all(tmp_path, tensors, fc):
    state = vgg_file.vgg_state(small_encoder(), write(tmp_path / "vgg.npz", tensors), "RGB", MEAN_BGR)
    found = sorted(key for key in state if key.startswith("fc"))
    assert found == (["fc6.conv.bias", "fc6.conv.weight", "fc7.conv.bias", "fc7.conv.weight"] if fc else [])


def settings_of_file(path, **changed):
    """The default's, with an encoder of SMALL that starts from the file, and other settings of the backbone changed."""
    backbone = {"source": "file", "path": path and str(path), "channel_order": "BGR", "mean": list(MEAN_BGR)} | changed
    network = {"network": {"blocks": SMALL, "fc": 5, "size": 8}, "backbone": backbone}
    return params.validate(params.merge(params.compose("icons"), network), "test")


def test_the_classifier_starts_from_the_files_convolutions_and_new_fc_layers(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "VGG16", SMALL)
    for name in ("split_images", "crop_batches"):
        monkeypatch.setattr(recipes, name, lambda *arguments: None)
    monkeypatch.setattr(recipes, "stage_table", lambda *arguments: pd.DataFrame({"label": [1]}))
    tensors = tensors_of_small()
    settings = settings_of_file(write(tmp_path / "vgg.safetensors", tensors), proposal_iterations=0)
    phases = recipes.backbone(settings)
    assert list(phases) == ["objects"]
    encoder = phases["objects"].net.encoder
    assert torch.equal(encoder.blocks[1].conv2_1.conv.weight, tensors["conv2_1.weight"])
    torch.manual_seed(settings.backbone.seed)
    assert torch.equal(encoder.fc6.conv.weight, build.make_classifier(settings).encoder.fc6.conv.weight)
    assert weights.start_from_vgg16(encoder, settings.backbone) == ["fc6", "fc7"]
    assert recipes.backbone(settings_of_file("never read", iterations=0, proposal_iterations=0)) == {}


def test_a_small_vgg_is_built_by_settings():
    """The mirror of VGG-16 on 96 px: fc6 covers the 3×3 cells that five poolings leave."""
    settings = params.validate(params.merge(params.compose("voc2012"), {"network": VGG_SMALL}), "test")
    with torch.device("meta"):
        net, fcn = build.make_deconvnet(settings), build.make_fcn(settings)
        assert net(torch.zeros(2, 3, 96, 96)).shape == (2, 21, 96, 96)
        assert fcn(torch.zeros(1, 3, 100, 80)).shape == (1, 21, 100, 80)
    assert net.encoder.fc6.conv.weight.shape == (1024, 512, 3, 3)
    assert net.encoder.shape == weights.VGG16


# Files that do not fit


def test_everything_that_does_not_fit_is_named_at_once(tmp_path):
    tensors = without(tensors_of_small(5), "conv2_1.bias", "fc7.bias")
    tensors |= {"conv2_2.weight": torch.zeros(3, 3, 3, 2), "conv9_1.weight": torch.zeros(1)}
    tensors |= {"conv1_1.bias": torch.tensor([0, torch.inf]), "conv2_1.weight": torch.ones(3, 2, 3, 3).int()}
    path = write(tmp_path / "vgg.npz", tensors)
    message = refuse(path)
    for problem in (
        "conv2_1.bias is missing",
        "conv2_2.weight has the shape (3, 3, 3, 2) instead of (3, 3, 3, 3)",
        "conv9_1.weight is no tensor of VGG-16",
        "conv1_1.bias holds other values than finite",
        "conv2_1.weight holds other values than finite",
    ):
        assert problem in message
    assert message.startswith(f"{path} does not hold")
    assert message.count(";") == 4
    assert "docs/running.md" in message


@pytest.mark.parametrize("name", ["vgg.npz", "vgg.safetensors"])
def test_files_that_cannot_be_read(tmp_path, name):
    path = write(tmp_path / name, tensors_of_small())
    whole = path.read_bytes()
    for content in (whole[:-9], whole[: len(whole) // 2], b"", b"no tensors", b"\x93NUMPY" + whole):
        path.write_bytes(content)
        assert f"is not a complete {path.suffix} file" in refuse(path)
    path.unlink()
    assert "cannot be read" in refuse(path)
    assert "neither an .npz nor a .safetensors" in refuse(tmp_path / "vgg.pth")


def test_objects_in_an_npz_are_not_executed(tmp_path):
    np.savez(tmp_path / "vgg.npz", **{"conv1_1.weight": np.array([print], dtype=object)})
    assert "is not a complete .npz file" in refuse(tmp_path / "vgg.npz")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"channel_order": None}, "others neither: channel_order"),
        ({"mean": None}, "others neither: mean"),
        ({"channel_order": None, "mean": None}, "others neither: channel_order and mean"),
        ({"source": "caffe"}, "others neither: channel_order and mean"),
        ({"path": None}, "need a path"),
        ({"channel_order": "GRB"}, "backbone.channel_order: input should be 'rgb' or 'bgr'"),
        ({"mean": [1, 2]}, "backbone.mean"),
        ({"mean": [1, 2, 256]}, "backbone.mean.2"),
    ],
)
def test_settings_say_what_the_file_holds(changed, problem):
    with pytest.raises(UserError, match=problem):
        settings_of_file(**{"path": "vgg.npz"} | changed)


def test_a_file_is_read_before_dvc_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "VGG16", SMALL)
    path = tmp_path / "vgg.npz"
    with pytest.raises(UserError, match=f"{path} does not exist: put"):
        preflight.check_weights(settings_of_file(path))
    write(path, tensors_of_small())
    preflight.check_weights(settings_of_file(path))
    write(path, without(tensors_of_small(), "conv2_1.bias"))
    with pytest.raises(UserError, match=f"{path} does not hold.*conv2_1.bias is missing"):
        preflight.check_weights(settings_of_file(path))

"""The reader of .caffemodel files: on files written here byte by byte, and against OpenCV's Caffe importer."""

import struct

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_validate import random_files
from torch import nn

from deconvnet import DeconvNet, FCN8s
from deconvnet.config.errors import UserError
from deconvnet.networks import caffe
from deconvnet.networks.deconvnet import Encoder

NARROW = dict(blocks=((4, 1), (4, 1), (6, 1), (6, 1), (8, 1)), fc=10)
INNER_PRODUCT, CONVOLUTION, DECONVOLUTION = 14, 4, 39  # V1LayerParameter.LayerType


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def block(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def blob(values: np.ndarray, legacy: bool) -> bytes:
    shape = values.shape
    if legacy:  # num, channels, height, width
        shape = (1,) * (4 - len(shape)) + shape
        head = b"".join(number(i, size) for i, size in enumerate(shape, start=1))
    else:
        head = block(7, block(1, b"".join(varint(size) for size in shape)))
    return head + block(5, values.astype("<f4").tobytes())


def write(path, layers: dict[str, list[np.ndarray]], version: int) -> None:
    """A NetParameter with V1 (`layers`, 2) or V2 (`layer`, 100) messages, and fields that `read` ignores."""
    data = block(1, b"a network")
    for name, blobs in layers.items():
        kind = DECONVOLUTION if "deconv" in name or "up" in name else CONVOLUTION
        if version == 1:
            body = block(2, b"in") + block(3, b"out") + block(4, name.encode()) + number(5, kind)
            body += b"".join(block(6, blob(b, legacy=True)) for b in blobs)
            body += varint(7 << 3 | 5) + struct.pack("<f", 2.0)  # blobs_lr
            data += block(2, body)
        else:
            body = block(1, name.encode()) + block(2, b"Deconvolution" if kind == DECONVOLUTION else b"Convolution")
            body += block(3, b"in") + block(4, b"out") + b"".join(block(7, blob(b, legacy=False)) for b in blobs)
            data += block(100, body)
    path.write_bytes(data)


def random_layers(network: nn.Module, rng: np.random.Generator, newer: bool = False) -> dict[str, list[np.ndarray]]:
    """Weights for every layer of `network` under their published names."""
    layers = {}
    for path, module in caffe.layers_with_weights(network):
        name = caffe.caffe_names(path)[-1 if newer else 0]
        layers[name] = [rng.normal(0.2, 0.3, tuple(p.shape)).astype(np.float32) for p in module.parameters()]
    return layers


@pytest.mark.parametrize("version", [1, 2])
def test_reads_every_layer_of_either_format(tmp_path, rng, version):
    layers = random_layers(DeconvNet(**NARROW, size=32), rng)
    write(tmp_path / "net.caffemodel", layers, version)
    found = caffe.read(tmp_path / "net.caffemodel")
    assert list(found) == list(layers)
    for name, blobs in layers.items():
        for ours, theirs in zip(found[name], blobs, strict=True):
            np.testing.assert_array_equal(ours, theirs.ravel())


def test_layers_of_the_papers_network_have_the_names_of_the_release():
    with torch.device("meta"):
        net = DeconvNet()
    names = [caffe.caffe_names(path)[0] for path, _ in caffe.layers_with_weights(net)]
    assert len(names) == len(set(names)) == 29 + 30  # 29 layers with batch norm, and the score without
    assert {"conv1_1", "bn1_1", "fc6", "bnfc6", "bnfc7", "fc6-deconv", "fc6-deconv-bn"} <= set(names)
    assert {"deconv5_3", "debn5_3", "deconv1_2", "debn1_2", "seg-score"} <= set(names)


def test_the_first_layer_of_a_deconvnet_by_hand(tmp_path, rng):
    """BGR less the mean, convolved, scaled and shifted as by the folded batch norm."""
    net = DeconvNet(**NARROW, size=32, std=58.0)
    layers = random_layers(net, rng)
    write(tmp_path / "net.caffemodel", layers, 1)
    net.load_state_dict(caffe.convert(net, caffe.read(tmp_path / "net.caffemodel")))
    net.eval()
    image = torch.from_numpy(rng.uniform(0, 255, (1, 3, 32, 32)).astype(np.float32))
    bgr = image.flip(1) - torch.tensor([104.00698793, 116.66876762, 122.67891434]).view(1, 3, 1, 1)
    kernel, bias = map(torch.from_numpy, layers["conv1_1"])
    scale, shift = (torch.from_numpy(b).view(1, -1, 1, 1) for b in layers["bn1_1"])
    expected = torch.relu(scale * nn.functional.conv2d(bgr, kernel, bias, padding=1) + shift)
    with torch.no_grad():
        first = net.encoder.blocks[0]((image - net.encoder.mean) / net.encoder.std)
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-3)


def test_vgg16_gives_fc6_and_fc7_from_matrices(tmp_path, rng):
    """VGG-16's file holds fc6 as (4096, 512 · 7 · 7) and fc8, which is not needed; rows of fc6 run over (c, y, x)."""
    encoder = Encoder(NARROW["blocks"], NARROW["fc"], fc_kernel=2, bn_eps=None, std=1.0)
    layers = random_layers(encoder, rng)
    matrix = layers["fc6"][0].reshape(10, 8 * 2 * 2)
    layers |= {"fc6": [matrix, layers["fc6"][1]], "fc8": [np.ones((5, 10), np.float32), np.ones(5, np.float32)]}
    write(tmp_path / "vgg.caffemodel", layers, 1)
    encoder.load_state_dict(caffe.convert(encoder, caffe.read(tmp_path / "vgg.caffemodel")))
    pool5 = rng.normal(size=(8, 2, 2)).astype(np.float32)
    expected = np.maximum(matrix @ pool5.ravel() + layers["fc6"][1], 0)
    with torch.no_grad():
        found = encoder.fc6(torch.from_numpy(pool5)[None])
    np.testing.assert_allclose(found.numpy().ravel(), expected, rtol=1e-5)


def prototxt(newer: bool, old_bias: bool, height: int, width: int, scaled: bool = False) -> str:
    """The authors' description of FCN-8s, with the widths of NARROW; `scaled`: of FCN-8s "at once"."""
    name = {key: names[-1 if newer else 0] for key, names in caffe.FCN_NAMES.items()}
    lines = [f'input: "data" input_shape {{ dim: 1 dim: 3 dim: {height} dim: {width} }}']

    def layer(kind, top, bottoms, parameters=""):
        bottoms = " ".join(f'bottom: "{b}"' for b in bottoms)
        lines.append(f'layer {{ name: "{top}" type: "{kind}" {bottoms} top: "{top}" {parameters} }}')
        return top

    def conv(top, bottom, outputs, kernel, pad=0, relu=True):
        x = layer("Convolution", top, [bottom],
                  f"convolution_param {{ num_output: {outputs} kernel_size: {kernel} pad: {pad} }}")  # fmt: skip
        return layer("ReLU", f"{top}_relu", [x]) if relu else x

    def up(top, bottom, kernel, stride, bias=False):
        return layer("Deconvolution", top, [bottom],
                     f"convolution_param {{ num_output: 21 kernel_size: {kernel} stride: {stride} "
                     f"bias_term: {str(bias).lower()} }}")  # fmt: skip

    def scale(pool):
        return layer("Scale", f"scale_{pool}", [pool]) if scaled else pool

    def crop(top, bottom, like, offset):
        return layer("Crop", top, [bottom, like], f"crop_param {{ axis: 2 offset: {offset} }}")

    x, pools = "data", []
    for i, (outputs, _) in enumerate(NARROW["blocks"], start=1):
        x = conv(f"conv{i}_1", x, outputs, 3, pad=100 if i == 1 else 1)
        x = layer("Pooling", f"pool{i}", [x], "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
        pools.append(x)
    x = conv("fc7", conv("fc6", x, NARROW["fc"], 7), NARROW["fc"], 1)
    x = up(name["up2_fc7"], conv(name["score_fc7"], x, 21, 1, relu=False), 4, 2, bias=old_bias)
    pool4 = crop("pool4c", conv(name["score_pool4"], scale(pools[3]), 21, 1, relu=False), x, 5)
    x = up(name["up2_pool4"], layer("Eltwise", "fused4", [x, pool4]), 4, 2)
    pool3 = crop("pool3c", conv(name["score_pool3"], scale(pools[2]), 21, 1, relu=False), x, 9)
    x = up(name["up8"], layer("Eltwise", "fused3", [x, pool3]), 16, 8)
    crop("score", x, "data", 31)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("newer", "old_bias", "scaled", "version"),
    [(False, False, False, 1), (False, True, False, 1), (True, False, False, 2), (True, False, True, 2)],
)
@pytest.mark.parametrize("size", [(96, 64), (75, 101)])
def test_fcn8s_gives_the_scores_of_opencvs_caffe_importer(tmp_path, rng, newer, old_bias, scaled, version, size):
    net = FCN8s(**NARROW, size=224, bn_eps=None, padding="image").eval()
    layers = random_layers(net, rng, newer)
    if old_bias:
        layers["score2"].append(rng.normal(size=21).astype(np.float32))
    if scaled:  # the authors' are 0.0001 and 0.01
        layers |= {"scale_pool3": [np.float32([0.3])], "scale_pool4": [np.float32([7])]}
    write(tmp_path / "fcn.caffemodel", layers, version)
    (tmp_path / "fcn.prototxt").write_text(prototxt(newer, old_bias, *size, scaled))
    net.load_state_dict(caffe.convert(net, caffe.read(tmp_path / "fcn.caffemodel")))
    image = rng.uniform(0, 255, (1, 3, *size)).astype(np.float32)

    theirs = cv2.dnn.readNetFromCaffe(str(tmp_path / "fcn.prototxt"), str(tmp_path / "fcn.caffemodel"))
    mean = np.float32([104.00698793, 116.66876762, 122.67891434])[None, :, None, None]
    theirs.setInput(image[:, ::-1] - mean)
    expected = theirs.forward("score")
    with torch.no_grad():
        found = net(torch.from_numpy(image)).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_messages_for_files_that_cannot_be_used(tmp_path, rng):
    net = DeconvNet(**NARROW, size=32)
    layers = random_layers(net, rng)
    path = tmp_path / "net.caffemodel"
    with pytest.raises(UserError, match="cannot be read"):
        caffe.read(path)
    write(path, layers, 2)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match="not a complete caffemodel"):
        caffe.read(path)
    path.write_bytes(block(100, block(1, b"conv1_1") + block(7, block(5, b"seven b"))))  # not a multiple of four bytes
    with pytest.raises(UserError, match="not a complete caffemodel"):
        caffe.read(path)
    path.write_bytes(block(1, b"a network without layers"))
    with pytest.raises(UserError, match="no layer with weights"):
        caffe.read(path)
    with pytest.raises(UserError, match="fc7 is missing"):
        caffe.convert(net, {name: blobs for name, blobs in layers.items() if name != "fc7"})
    with pytest.raises(UserError, match=r"bnfc6 has \[10\] weights where this network has \[10, 10\]"):
        caffe.convert(net, layers | {"bnfc6": layers["bnfc6"][:1]})
    with pytest.raises(UserError, match=r"is of another network: conv1_1 has .* and \d+ more"):
        caffe.convert(DeconvNet(**NARROW | {"blocks": ((5, 1),) * 5}, size=32), layers)


def networks() -> dict[str, nn.Module]:
    return {
        "deconvnet": DeconvNet(**NARROW, size=32),
        "fcn8s": FCN8s(**NARROW, size=224, bn_eps=None, padding="image"),
        "vgg16": Encoder(NARROW["blocks"], NARROW["fc"], fc_kernel=2, bn_eps=None, std=1.0),
    }


NETWORKS = networks()
EXTRA = {  # layers that Caffe's networks have beside these, and the sizes of their blobs
    "scale3": [8], "scale_pool4": [8], "scale_pool3": [1, 1], "prelu2": [4], "conv2_1/bn": [4, 4, 1], "bias": [8],
    "conv2_1/scale": [4, 4], "fc6b": [100, 10], "seg-score-voc": [8, 2], "recurrent": [6, 6, 6], "scalar": [1],
    "empty": [0], "conv6_1": [72, 8], "fc7_scale": [10, 10], "norm": [10],
}  # fmt: skip


@random_files
@given(st.sampled_from(sorted(NETWORKS)), st.sampled_from([1, 2]), st.data())
def test_layers_that_a_network_lacks_are_named(tmp_path_factory, kind, version, data):
    """Wherever they lie in the file. Only classifiers behind fc7 are left out, by an encoder."""
    layers, rng = random_layers(NETWORKS[kind], np.random.default_rng(0)), np.random.default_rng(1)
    extra = data.draw(st.lists(st.sampled_from(sorted(EXTRA)), min_size=1, max_size=3, unique=True))
    items = list(layers.items())
    for name in extra:
        blobs = [rng.normal(size=size).astype(np.float32) for size in EXTRA[name]]
        behind_fc7 = [key for key, _ in items].index("fc7") + 1
        last = len(items) if name != "fc6b" else behind_fc7 - 1  # behind fc7 it would be a classifier of ten classes
        items.insert(data.draw(st.integers(0, last)), (name, blobs))
    path = tmp_path_factory.getbasetemp() / "extra.caffemodel"
    write(path, dict(items), version)
    with pytest.raises(UserError, match="has no place for the weights of") as failed:
        caffe.convert(NETWORKS[kind], caffe.read(path))
    assert all(name in str(failed.value) for name in extra)


@random_files
@given(st.integers(1, 30), st.booleans())
def test_only_an_encoder_does_without_classifiers(classes, first):
    """VGG-16's fc8, or the two heads of a detector. The same layer before fc7 would change what fc7 gets."""
    head = {"head": [np.ones(10 * classes, np.float32), np.ones(classes, np.float32)]}
    for kind, network in NETWORKS.items():
        layers = random_layers(network, np.random.default_rng(0))
        given = head | layers if first else layers | head
        if kind == "vgg16" and not first:
            for key, value in caffe.convert(network, layers).items():
                assert torch.equal(value, caffe.convert(network, given)[key])
        else:
            with pytest.raises(UserError, match="no place for the weights of head"):
                caffe.convert(network, given)


def test_two_layers_of_one_name(tmp_path, rng):
    """Equal ones, as of shared weights, are one layer; otherwise nothing says which is meant."""
    network = NETWORKS["fcn8s"]
    layers = random_layers(network, rng)
    for version in (1, 2):
        write(tmp_path / "one", layers, version)
        write(tmp_path / "other", {"fc7": layers["fc7"]}, version)
        (tmp_path / "twice").write_bytes((tmp_path / "one").read_bytes() + (tmp_path / "other").read_bytes())
        assert list(caffe.read(tmp_path / "twice")) == list(layers)
        write(tmp_path / "other", {"fc7": [layers["fc7"][0] + 1, layers["fc7"][1]]}, version)
        (tmp_path / "twice").write_bytes((tmp_path / "one").read_bytes() + (tmp_path / "other").read_bytes())
        with pytest.raises(UserError, match="two layers named fc7 with other weights"):
            caffe.read(tmp_path / "twice")


@random_files
@given(st.sampled_from(sorted(NETWORKS)), st.data())
def test_blobs_too_many_or_too_few_are_refused(kind, data):
    network = NETWORKS[kind]
    layers = random_layers(network, np.random.default_rng(0))
    name = data.draw(st.sampled_from(sorted(layers.keys() - {"score2"})))  # the first FCN-8s has a bias there
    blobs = layers[name]
    added = np.ones(data.draw(st.sampled_from([0, 1, blobs[-1].size])), np.float32)
    spoilt = data.draw(st.sampled_from([[*blobs, added], blobs[:-1], [*blobs[:-1], blobs[-1].ravel()[1:]]]))
    with pytest.raises(UserError, match=f"{name} (has .* weights where this network has|is missing)"):
        caffe.convert(network, layers | {name: spoilt})


@pytest.mark.parametrize("size", [0, 1, 20])
def test_a_bias_of_another_size_is_not_moved(rng, size):
    layers = random_layers(NETWORKS["fcn8s"], rng)
    layers["score2"].append(np.ones(size, np.float32))
    with pytest.raises(UserError, match="score2 has"):
        caffe.convert(NETWORKS["fcn8s"], layers)

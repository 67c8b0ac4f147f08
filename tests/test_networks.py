"""Both networks: the paper's table 2, unpooling by hand, positions that must not shift, and where weights come from."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import vgg16

from deconvnet import DeconvNet, FCN8s
from deconvnet.config import params, schema
from deconvnet.config.errors import UserError
from deconvnet.networks import fuse, weights
from deconvnet.networks.deconvnet import Encoder
from deconvnet.networks.fcn import bilinear

NARROW = ((1, 1),) * 5
VOC_WIDE = ((2, 2), (2, 2), (2, 3), (2, 3), (2, 3))

TABLE_2 = [  # layers of the paper's table 2 and where they are here, side and channels of their outputs
    ("encoder.blocks.0", ("conv1_1", "conv1_2"), 224, 64),
    ("encoder.blocks.1", ("conv2_1", "conv2_2"), 112, 128),
    ("encoder.blocks.2", ("conv3_1", "conv3_2", "conv3_3"), 56, 256),
    ("encoder.blocks.3", ("conv4_1", "conv4_2", "conv4_3"), 28, 512),
    ("encoder.blocks.4", ("conv5_1", "conv5_2", "conv5_3"), 14, 512),
    ("encoder", ("fc6", "fc7"), 1, 4096),
    ("", ("fc6_deconv",), 7, 512),
    ("decoder.0", ("deconv5_1", "deconv5_2", "deconv5_3"), 14, 512),
    ("decoder.1", ("deconv4_1", "deconv4_2"), 28, 512),
    ("decoder.1", ("deconv4_3",), 28, 256),
    ("decoder.2", ("deconv3_1", "deconv3_2"), 56, 256),
    ("decoder.2", ("deconv3_3",), 56, 128),
    ("decoder.3", ("deconv2_1",), 112, 128),
    ("decoder.3", ("deconv2_2",), 112, 64),
    ("decoder.4", ("deconv1_1", "deconv1_2"), 224, 64),
    ("", ("score",), 224, 21),
]


@pytest.fixture(scope="module")
def paper_net():
    """The paper's network without its gigabyte: shapes only."""
    with torch.device("meta"):
        return DeconvNet()


# DeconvNet


def test_numbers_of_parameters_are_the_papers(paper_net):
    def count(*parts, kinds):
        modules = [m for part in parts for m in part.modules() if isinstance(m, kinds)]
        return sum(p.numel() for m in modules for p in m.parameters())

    assert sum(p.numel() for p in paper_net.parameters()) == 251_805_653
    convolutions = (nn.Conv2d, nn.ConvTranspose2d)
    assert count(paper_net.encoder, kinds=convolutions) == 134_260_544
    assert count(paper_net.fc6_deconv, paper_net.decoder, kinds=convolutions) == 117_510_336
    assert count(paper_net.score, kinds=convolutions) == 1_365
    assert count(paper_net, kinds=nn.BatchNorm2d) == 33_408


def test_every_output_has_the_shape_of_table_2(paper_net):
    layers = {name: m for name, m in paper_net.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}
    computed = []  # in the order of computation
    hooks = [
        m.register_forward_hook(lambda _, __, out, name=name: computed.append((name.removesuffix(".conv"), *out.shape)))
        for name, m in layers.items()
    ]
    paper_net(torch.zeros(2, 3, 224, 224, device="meta"))
    for hook in hooks:
        hook.remove()
    expected = [(f"{part}.{name}".strip("."), 2, c, side, side) for part, names, side, c in TABLE_2 for name in names]
    assert computed == expected


def test_every_layer_but_the_last_is_followed_by_batch_norm_and_relu(paper_net):
    units = [m for m in paper_net.modules() if isinstance(m, nn.Sequential) and hasattr(m, "conv")]
    assert len(units) == 29
    assert all([type(m) for m in unit][1:] == [nn.BatchNorm2d, nn.ReLU] for unit in units)
    assert type(paper_net.score) is nn.Conv2d
    assert not any(isinstance(m, nn.Dropout | nn.Dropout2d) for m in paper_net.modules())


def test_scores_may_be_negative():
    net = DeconvNet(classes=3, blocks=NARROW, fc=1, size=32).eval()
    nn.init.constant_(net.score.bias, -2.0)
    nn.init.zeros_(net.score.weight)
    assert (net(torch.rand(1, 3, 32, 32)) == -2).all()


def test_initial_batch_norm_is_the_releases():
    for module in DeconvNet(blocks=VOC_WIDE, fc=2, size=32).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.eps == 1e-9
            assert (module.weight == 1).all()
            assert (module.bias == torch.tensor(0.001)).all()


def test_decoder_and_score_start_gaussian():
    torch.manual_seed(0)
    net = DeconvNet(blocks=((16, 1), (24, 2)), fc=64, size=16)
    layers = [m for m in net.modules() if isinstance(m, nn.ConvTranspose2d)] + [net.score]
    assert len(layers) == 5
    for layer in layers:
        deviation = 0.01 / (2 * layer.weight.numel()) ** 0.5  # of an estimate of the standard deviation
        assert layer.weight.std().item() == pytest.approx(0.01, abs=5 * deviation)
        assert abs(layer.weight.mean().item()) < 5 * 0.01 / layer.weight.numel() ** 0.5
        assert (layer.bias == 0).all()


@pytest.mark.parametrize("unpool", [nn.MaxUnpool2d(2, 2), fuse.ChannelsLastUnpool()])
def test_unpooling_puts_each_maximum_back_where_it_was(unpool):
    x = torch.tensor([[1.0, 5, 2, 1], [3, 2, 0, 4], [9, 1, 1, 1], [2, 8, 7, 1]])[None, None]
    expected = torch.tensor([[0.0, 5, 0, 0], [0, 0, 0, 4], [9, 0, 0, 0], [0, 0, 7, 0]])
    encoder = Encoder(((3, 1),), fc=1, fc_kernel=2, bn_eps=None, std=1.0)
    nn.init.dirac_(encoder.blocks[0].conv1_1.conv.weight)  # the convolution passes the image on
    nn.init.zeros_(encoder.blocks[0].conv1_1.conv.bias)
    (pool,), (switch,) = encoder(x + encoder.mean)
    torch.testing.assert_close(pool[0, 0], torch.tensor([[5.0, 4], [9, 7]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(unpool(pool, switch)[0, 0], expected, atol=1e-4, rtol=0)


def test_the_decoder_takes_the_switches_of_its_own_block():
    """Deconvolutions that pass their input on leave a score exactly at the maximum of each 4×4 cell."""
    net = DeconvNet(classes=1, blocks=((1, 1), (1, 1)), fc=1, size=8, bn_eps=None)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.zeros_(module.bias)
            nn.init.dirac_(module.weight) if module.kernel_size == (3, 3) else nn.init.ones_(module.weight)
    image = torch.zeros(1, 3, 8, 8)
    image[0, 0] = torch.randperm(64, generator=torch.Generator().manual_seed(0)).view(8, 8).float() + 1
    scores = net(image + net.encoder.mean)[0, 0]
    maxima = F.max_pool2d(image[:, :1], 4).flatten()
    assert sorted(scores.nonzero().tolist()) == sorted((image[0, 0][..., None] == maxima).any(-1).nonzero().tolist())


def test_a_size_that_is_not_a_multiple_of_the_stride_is_refused():
    with pytest.raises(ValueError, match="size 100 is not a multiple of 32"):
        DeconvNet(blocks=NARROW, fc=1, size=100)


def test_the_encoder_subtracts_the_mean_and_scales():
    encoder = Encoder(((3, 1),), fc=1, fc_kernel=1, bn_eps=None, std=2.0)
    nn.init.dirac_(encoder.blocks[0].conv1_1.conv.weight)
    nn.init.zeros_(encoder.blocks[0].conv1_1.conv.bias)
    white = torch.full((1, 3, 2, 2), 255.0)
    (pool,), _ = encoder(white)
    rgb = torch.tensor([255 - 122.675, 255 - 116.669, 255 - 104.008]) / 2
    torch.testing.assert_close(pool[0, :, 0, 0], rgb)


# FCN-8s


@pytest.mark.parametrize("size", [64, 96])  # fc6 kernels of 2 and 3
@pytest.mark.parametrize(("height", "width"), [(37, 53), (32, 64), (1, 100)])
def test_fcn_scores_have_the_images_size(size, height, width):
    net = FCN8s(classes=4, blocks=NARROW, fc=2, size=size).eval()
    assert net(torch.rand(2, 3, height, width)).shape == (2, 4, height, width)


@pytest.mark.parametrize("size", [64, 96])
def test_fcn_scores_start_at_zero(size):
    net = FCN8s(blocks=NARROW, fc=2, size=size).eval()
    assert (net(255 * torch.rand(1, 3, 37, 53)) == 0).all()


@pytest.mark.parametrize("kernel", [1, 2, 3, 7])
@pytest.mark.parametrize(("score", "stride"), [("score_fc7", 32), ("score_pool4", 16), ("score_pool3", 8)])
def test_fcn_keeps_positions(kernel, score, stride):
    """A network that passes the image on, given a ramp, must return the ramp: a shift by half a cell would show.

    The maximum of a ramp over a cell of `stride` pixels is at its last pixel, (stride - 1) / 2 after its centre.
    """
    net = FCN8s(classes=1, blocks=NARROW, fc=1, size=32 * kernel).eval()
    net.encoder.mean.zero_()
    for module in net.encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
    nn.init.constant_(net.encoder.fc6.conv.weight, 1 / kernel**2)
    nn.init.ones_(getattr(net, score).weight)
    height, width = 320, 384
    ramp = torch.arange(width) + 3.0 * torch.arange(height)[:, None] + 10
    out = net(torch.stack([ramp, 0 * ramp, 0 * ramp])[None])[0, 0]
    expected = ramp + (stride - 1) / 2 * (1 + 3)
    inside = slice(144, 176), slice(144, 240)  # out of reach of the zeros at the border
    torch.testing.assert_close(out[inside], expected[inside], atol=0.01, rtol=0)


def test_bilinear_weights_by_hand():
    weight = bilinear(nn.ConvTranspose2d(1, 1, 4, stride=2, bias=False)).weight[0, 0]
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    torch.testing.assert_close(weight, row[:, None] * row)


def test_the_last_upsampling_stays_bilinear():
    net = FCN8s(blocks=NARROW, fc=1, size=32)
    assert not net.up8.weight.requires_grad
    assert net.up2_fc7.weight.requires_grad


# The encoder's weights


class SmallVgg(nn.Module):
    """A small version of torchvision's VGG: `vgg16_state` reads its features and classifier."""

    def __init__(self):
        super().__init__()
        layers, before = [], 3
        for width, depth in ((2, 1), (3, 2)):
            for _ in range(depth):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(3 * 2 * 2, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 5), nn.ReLU())

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def test_an_encoder_with_vgg16s_weights_computes_what_torchvisions_network_does():
    torch.manual_seed(0)
    source = SmallVgg().eval()
    for parameter in source.parameters():
        nn.init.normal_(parameter, std=0.5)
    encoder = Encoder(((2, 1), (3, 2)), fc=5, fc_kernel=2, bn_eps=None, std=58.0)
    encoder.load_state_dict(weights.vgg16_state(encoder, source), strict=True)
    image = 255 * torch.rand(2, 3, 8, 8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = source((image / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    pools, _ = encoder(image)
    assert expected.std() > 0.1
    torch.testing.assert_close(encoder.fc7(encoder.fc6(pools[-1])).flatten(1), expected, atol=1e-4, rtol=1e-4)


def test_vgg16_has_weights_for_every_convolution_of_the_encoder(paper_net):
    with torch.device("meta"):
        state = weights.vgg16_state(paper_net.encoder, vgg16())
    ours = {name: tensor.shape for name, tensor in paper_net.encoder.state_dict().items()}
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: shape for name, shape in ours.items() if ".conv." in name or name == "mean"
    }


def test_a_smaller_encoder_refuses_vgg16s_weights():
    with pytest.raises(UserError, match="source: train"):
        weights.start_from_vgg16(Encoder(NARROW, 1, 1, None, 1.0), params.load().backbone)


@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("invalid hash value")])
def test_a_failed_download_of_vgg16_is_explained(monkeypatch, tmp_path, error):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=rf"https://.*{error}.*vgg16-397923af.pth exists, delete it"):
        weights.download_vgg16()


class Trap:
    """A pickle of it touches the file `path` if it is loaded carelessly."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_vgg16_comes_from_its_file_without_executing_anything_in_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr("torchvision.models.vgg16", lambda: nn.Linear(2, 1))  # instead of 528 MB
    torch.save({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}, path)
    assert weights.download_vgg16().weight.tolist() == [[1.0, 2.0]]
    torch.save({"weight": Trap(tmp_path / "executed")}, path)
    with pytest.raises(UserError, match="delete it"):
        weights.download_vgg16()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("source", ["backbone", "caffe"])
def test_training_starts_with_the_whole_network_on_the_device(tmp_path, monkeypatch, source):
    """The device is torch's meta, so that a tensor left on the CPU is found."""
    net, path = DeconvNet(blocks=NARROW, fc=1, size=32), tmp_path / "net.caffemodel"
    weights.save(net.encoder, "backbone", tmp_path)
    monkeypatch.setattr(weights, "load", partial(weights.load, folder=tmp_path))
    monkeypatch.setattr(weights.caffe, "load", lambda network, path: network)
    monkeypatch.setattr(weights.machine, "device", lambda: torch.device("meta"))
    start = schema.Weights(source=source, path=str(path) if source == "caffe" else None)
    assert weights.initialise(net, start) is net
    assert {tensor.device.type for tensor in net.state_dict().values()} == {"meta"}


def test_loaded_weights_are_those_saved_and_set_to_inference(tmp_path, monkeypatch):
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    net = DeconvNet(blocks=NARROW, fc=1, size=32).train()
    nn.init.constant_(net.encoder.fc6.bn.running_mean, 7.0)
    weights.save(net, "net", tmp_path)
    loaded = weights.load(DeconvNet(blocks=NARROW, fc=1, size=32), "net", tmp_path)
    assert not any(module.training for module in loaded.modules())
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_weights_of_another_network_are_refused(tmp_path):
    weights.save(DeconvNet(blocks=NARROW, fc=1, size=32), "net", tmp_path)
    with pytest.raises(UserError, match="another network"):
        weights.load(DeconvNet(blocks=NARROW, fc=2, size=32), "net", tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        weights.load(DeconvNet(blocks=NARROW, fc=1, size=32), "other", tmp_path)
    (tmp_path / "junk.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="not a complete safetensors file"):
        weights.load(DeconvNet(blocks=NARROW, fc=1, size=32), "junk", tmp_path)

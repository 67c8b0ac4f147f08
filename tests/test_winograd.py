"""Winograd's convolution is the convolution; which layers it replaces, and that the default's are not among them."""

import pytest
import torch
from torch import nn

from deconvnet import DeconvNet
from deconvnet.config import params
from deconvnet.networks import build
from deconvnet.networks.fuse import fold_batch_norm, for_inference


def furthest(layer: nn.Module, x: torch.Tensor) -> float:
    """The largest difference, relative to the largest output."""
    with torch.inference_mode():
        expected, found = layer(x), Winograd(layer)(x)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("size", [(8, 8), (14, 13), (3, 1), (5, 16)])
def test_it_is_the_convolution(kind, size, monkeypatch):
    """At sizes that tiles of four fill and that they do not; one picture at a time, and all at once."""
    torch.manual_seed(0)
    layer, x = kind(5, 7, 3, padding=1).double(), torch.randn(3, 5, *size, dtype=torch.float64)
    assert furthest(layer, x) < 1e-13
    monkeypatch.setattr(winograd, "ELEMENTS", 1)
    assert furthest(layer, x) < 1e-13


def test_the_identity_and_the_border_by_hand():
    """A kernel of one 1 in the middle leaves what it reads; one of ones sums nine pixels, six at a side, four in a
    corner.
    """
    layer, x = nn.Conv2d(1, 1, 3, padding=1).double(), torch.arange(30.0, dtype=torch.float64).view(1, 1, 5, 6)
    nn.init.zeros_(layer.bias)
    nn.init.dirac_(layer.weight)
    torch.testing.assert_close(Winograd(layer)(x), x)
    nn.init.ones_(layer.weight)
    sums = Winograd(layer)(torch.ones_like(x))[0, 0]
    torch.testing.assert_close(sums[[0, 0, 2], [0, 3, 3]], torch.tensor([4.0, 6.0, 9.0], dtype=torch.float64))


def test_in_single_precision_it_differs_by_rounding():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(256, 256, 3, padding=1), torch.relu(torch.randn(2, 256, 20, 20))
    nn.init.kaiming_normal_(layer.weight)
    assert furthest(layer, x) < 1e-4


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(128, 256, 3, padding=1), True),
        (nn.ConvTranspose2d(512, 512, 3, padding=1), True),
        (nn.Conv2d(128, 128, 3, padding=1), False),
        (nn.Conv2d(256, 256, 3, padding=1, stride=2), False),
        (nn.Conv2d(256, 256, 3), False),
        (nn.Conv2d(256, 256, 1), False),
        (nn.ConvTranspose2d(256, 256, 4, padding=1), False),
        (nn.Identity(), False),
    ],
)
def test_which_layers_it_replaces(layer, expected):
    assert Winograd.replaces(layer) is expected


def replaced(net: nn.Module) -> int:
    return sum(isinstance(module, Winograd) for module in for_inference(net.eval()).modules())


def test_the_default_keeps_its_own_convolutions(monkeypatch):
    """So its results stay, byte for byte; what is said of the code in dvc.lock hangs on this."""
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    for profile in ("icons", "smoke"):
        settings = params.validate(params.compose(profile), profile)
        assert [replaced(make(settings)) for make in (build.make_deconvnet, build.make_fcn)] == [0, 0]


def test_the_papers_network_gains_on_a_cpu_in_single_precision_only(monkeypatch):
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    torch.manual_seed(0)
    net, image = DeconvNet().eval(), 255 * torch.rand(1, 3, 224, 224)
    ready, folded = for_inference(net), fold_batch_norm(net)
    assert sum(isinstance(module, Winograd) for module in ready.modules()) == 18
    with torch.inference_mode():
        for found, expected in zip(ready.encoder(image)[0], folded.encoder(image)[0], strict=True):
            assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    monkeypatch.setenv("DECONVNET_PRECISION", "bf16-mixed")
    assert replaced(net) == 0

"""Faster layers compute what they replace: a GPU's layers, batch norm folded into convolutions, and both together."""

import copy

import pytest
import torch
from torch import nn

from deconvnet import DeconvNet, FCN8s
from deconvnet.networks.fuse import (
    ChannelsLastUnpool,
    FullKernelConv2d,
    FullKernelConvTranspose2d,
    fold_batch_norm,
    use_gpu_layers,
)

NARROW = dict(blocks=((4, 1), (6, 2), (6, 1), (8, 2), (8, 1)), fc=10, bn_eps=1e-5)
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def trained(network: nn.Module) -> nn.Module:
    """Batch norms with statistics, scales and shifts of their own, and scores that are not 0, as after training."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
        elif isinstance(module, nn.Conv2d) and not module.weight.any():  # FCN-8s starts its scores at 0
            nn.init.normal_(module.weight)
    return network.eval()


def output_and_gradients(function, x, *parameters):
    """The output, and the gradients of its sum of squares by x and the parameters."""
    x = x.detach().clone().requires_grad_()
    out = function(x)
    return out, *torch.autograd.grad((out**2).sum(), [x, *parameters])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unpooling_in_channels_last_layout_is_unpooling(layout):
    x = torch.randn(2, 3, 6, 8).contiguous(memory_format=layout)
    pool, switches = nn.functional.max_pool2d(x, 2, 2, return_indices=True)
    plain, other = (
        output_and_gradients(lambda pool, unpool=unpool: unpool(pool, switches), pool)
        for unpool in (nn.MaxUnpool2d(2, 2), ChannelsLastUnpool())
    )
    torch.testing.assert_close(other, plain, rtol=0, atol=0)
    assert other[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("kind", "plain", "channels", "side"),
    [(FullKernelConv2d, nn.Conv2d, (3, 5), 4), (FullKernelConvTranspose2d, nn.ConvTranspose2d, (5, 3), 1)],
)
def test_matrix_products_are_the_convolutions_that_they_replace(kind, plain, channels, side, layout):
    layer = kind(*channels, 4).to(memory_format=layout)
    for size in ((side, side), (9, 7)):  # FCN-8s has larger maps than the kernel
        x = torch.randn(2, channels[0], *size).contiguous(memory_format=layout)
        found = output_and_gradients(layer, x, *layer.parameters())
        expected = output_and_gradients(lambda x: plain.forward(layer, x), x, *layer.parameters())
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("network", "swapped"),
    [(DeconvNet(**NARROW, size=32), 3), (FCN8s(**NARROW, size=64), 1)],
    ids=["deconvnet", "fcn8s"],
)
def test_a_network_with_a_gpus_layers_has_the_same_weights_and_scores(network, swapped):
    image = 255 * torch.rand(2, 3, 32, 32, dtype=torch.float64)
    plain = trained(network).double()
    fast = use_gpu_layers(copy.deepcopy(plain)).to(memory_format=torch.channels_last)
    kinds = (FullKernelConv2d, FullKernelConvTranspose2d, ChannelsLastUnpool)
    assert sum(isinstance(module, kinds) for module in fast.modules()) == swapped
    assert list(fast.state_dict()) == list(plain.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(fast(image), plain(image))


@pytest.mark.parametrize("network", [DeconvNet(**NARROW, size=32), FCN8s(**NARROW, size=64)])
def test_folding_changes_nothing_but_rounding(network):
    image = 255 * torch.rand(2, 3, getattr(network, "size", 50), 32, dtype=torch.float64)
    folded = fold_batch_norm(trained(network).double())
    with torch.inference_mode():
        scores = network(image)
        assert 0 < (scores - folded(image)).abs().max() < 1e-10 * scores.abs().max()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_folding_in_single_precision():
    """Where two pixels of a pooling cell are equal but for rounding, folding may change which of them is the maximum,
    and so where its value is put back. Both halves are therefore compared behind the same switches.
    """
    wide = dict(blocks=((32, 2), (48, 2), (64, 3), (64, 3), (64, 3)), fc=128, bn_eps=1e-9)  # the paper's depth
    network, image = trained(DeconvNet(**wide, size=64)), 255 * torch.rand(1, 3, 64, 64)
    folded = fold_batch_norm(network)
    with torch.inference_mode():
        (pools, switches), (folded_pools, _) = network.encoder(image), folded.encoder(image)
        for plain, other in zip(pools, folded_pools, strict=True):
            assert (plain - other).abs().max() < 1e-4 * plain.abs().max()
        folded.encoder.forward = lambda x: (pools, switches)
        scores = network(image)
        assert (scores - folded(image)).abs().max() < 1e-4 * scores.abs().max()


def test_a_network_in_training_is_refused():
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        fold_batch_norm(DeconvNet(**NARROW, size=32).train())

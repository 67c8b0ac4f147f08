"""A folded network is the network."""

import pytest
import torch
from torch import nn

from deconvnet import DeconvNet, FCN8s
from deconvnet.networks.fuse import fold_batch_norm

NARROW = dict(blocks=((4, 1), (6, 2), (6, 1), (8, 2), (8, 1)), fc=10, bn_eps=1e-5)


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


def furthest(network: nn.Module, image: torch.Tensor) -> float:
    """The largest difference of folded and plain scores, relative to the largest score."""
    with torch.inference_mode():
        plain, folded = network(image), fold_batch_norm(network)(image)
    return float((plain - folded).abs().max() / plain.abs().max())


@pytest.mark.parametrize("network", [DeconvNet(**NARROW, size=32), FCN8s(**NARROW, size=64)])
def test_folding_changes_nothing_but_rounding(network):
    image = 255 * torch.rand(2, 3, network.size if hasattr(network, "size") else 50, 32, dtype=torch.float64)
    assert 0 < furthest(trained(network).double(), image) < 1e-10
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fold_batch_norm(network).modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_folding_the_paper_size_network_in_single_precision():
    """Where two pixels of a pooling cell are equal but for rounding, folding may change which of them wins and so where
    a value is put back. Both halves are therefore compared behind the same switches.
    """
    network, image = trained(DeconvNet()), 255 * torch.rand(1, 3, 224, 224)
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

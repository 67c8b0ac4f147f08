"""What makes the networks faster without changing what they compute: layers as matrix products, unpooling in
channels-last layout, and, for inference, batch norm folded into the convolutions (as the release does).
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deconvnet.config import machine
from deconvnet.networks.deconvnet import DeconvNet


class FullKernelConv2d(nn.Conv2d):
    """fc6, whose kernel is as large as its input: the matrix product of a fully connected layer. cuDNN's convolution
    took 9 of the 85 ms of an iteration of the paper's network on an H200.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2:] != self.kernel_size:
            return super().forward(x)
        rows, weight = (part.permute(0, 2, 3, 1).flatten(1) for part in (x, self.weight))  # views, in channels-last
        return F.linear(rows, weight, self.bias)[..., None, None]


class FullKernelConvTranspose2d(nn.ConvTranspose2d):
    """Its mirror image, (N, C, 1, 1) → (N, c, k, k): likewise. On a CPU, torch's own takes a sixth of the time of the
    paper's network in inference, for three thousandths of its operations.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2:] != (1, 1):
            return super().forward(x)
        weight = self.weight.permute(0, 2, 3, 1)  # C × k × k × c
        bias = self.bias.repeat(weight[0, ..., 0].numel())
        return torch.addmm(bias, x.flatten(1), weight.flatten(1)).unflatten(1, weight.shape[1:]).permute(0, 3, 1, 2)


class ChannelsLastUnpool(nn.Module):
    """2×2 unpooling of maps in channels-last layout; torch's own would transpose them there and back on a GPU."""

    def forward(self, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        number, channels, height, width = x.shape
        values, places = (part.permute(0, 2, 3, 1).flatten(1, 2) for part in (x, indices))  # N × hw × C
        spread = x.new_zeros(number, 4 * height * width, channels).scatter_(1, places, values)
        return spread.view(number, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


def use_gpu_layers(network: nn.Module) -> nn.Module:
    """Swaps in the layers above, in place and with the same parameters: for a DeconvNet or FCN8s on a GPU."""
    network.encoder.fc6.conv.__class__ = FullKernelConv2d
    if isinstance(network, DeconvNet):
        network.fc6_deconv.conv.__class__ = FullKernelConvTranspose2d
        network.unpool = ChannelsLastUnpool()
    return network


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of `network`, a DeconvNet or FCN8s in inference mode, with batch norm folded into its (de)convolutions.

    The scores are the same up to rounding. Raises ValueError for a network in training mode, whose statistics change.
    """
    if network.training:
        raise ValueError("Only a network in inference mode can be folded: call eval() first.")
    folded = copy.deepcopy(network)
    for block in folded.modules():
        if isinstance(getattr(block, "bn", None), nn.BatchNorm2d):
            block.conv = fuse_conv_bn_eval(block.conv, block.bn, transpose=isinstance(block.conv, nn.ConvTranspose2d))
            block.bn = nn.Identity()
    if isinstance(folded, DeconvNet):
        folded.fc6_deconv.conv.__class__ = FullKernelConvTranspose2d
    return folded


def for_inference(network: nn.Module) -> nn.Module:
    """A folded copy in the machine's precision (DECONVNET_PRECISION): its scores are float32 or bfloat16.

    Weights are converted once, where autocast would convert 252 million of them for each batch.
    """
    folded = fold_batch_norm(network)
    if machine.precision() == "bf16-mixed":
        folded.to(torch.bfloat16).encoder.mean = network.encoder.mean
    return folded.to(memory_format=torch.channels_last)

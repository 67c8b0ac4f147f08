"""What inference can do without: batch norm, which with fixed statistics is a scale and a shift (the release folds it
too), and on a CPU three of four multiplications of wide convolutions.
"""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deconvnet import machine
from deconvnet.network import DeconvNet
from deconvnet.winograd import Winograd


def fold(network: nn.Module) -> nn.Module:
    """A copy of `network`, a DeconvNet or FCN8s set to inference, whose (de)convolutions do their batch norm's work.

    The scores are the same but for rounding. Raises ValueError on a network in training: its statistics still move.
    """
    if network.training:
        raise ValueError("Only a network in inference mode can be folded: call eval() first.")
    folded = copy.deepcopy(network)
    for unit in folded.modules():
        if isinstance(getattr(unit, "bn", None), nn.BatchNorm2d):
            unit.conv = fuse_conv_bn_eval(unit.conv, unit.bn, transpose=isinstance(unit.conv, nn.ConvTranspose2d))
            unit.bn = nn.Identity()
    if isinstance(folded, DeconvNet):
        folded.fc6_deconv.conv.as_product = True
    return folded


def for_inference(network: nn.Module) -> nn.Module:
    """A folded copy in the machine's precision (DECONVNET_PRECISION): its scores are float32 or bfloat16.

    Weights are converted once, where autocast would convert 252 million of them for each batch. On a CPU the paper's
    network gains by Winograd's convolution; the default's is too narrow, and bfloat16 has not the digits for it.
    """
    folded = fold(network)
    if machine.precision() == "bf16-mixed":
        folded.to(torch.bfloat16).encoder.mean = network.encoder.mean
    elif machine.device().type == "cpu":
        for unit in [unit for unit in folded.modules() if Winograd.replaces(getattr(unit, "conv", None))]:
            unit.conv = Winograd(unit.conv)
    return folded.to(memory_format=torch.channels_last)

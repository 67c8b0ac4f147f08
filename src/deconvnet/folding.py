"""Batch norm with fixed statistics is a scale and a shift: inference can do without it (the release folds it too)."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


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
    return folded

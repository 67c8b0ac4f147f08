"""DeconvNet without one of the things that the paper says it needs (claims C6, C7 and C8), from the same backbone.

one_stage         trained on stage 2's examples only, for as many iterations as both stages (section 4.2)
no_batch_norm     the encoder's batch norms folded into its weights, none in the decoder (section 4.1)
no_batch_norm_he  the same with the decoder initialised as by He et al. (2015): with std 0.01, signals vanish
bilinear          ×2 bilinear upsampling instead of unpooling (section 3.2.1)
"""

import torch
from torch import nn
from torch.nn import functional as F

from deconvnet.config import machine
from deconvnet.config.schema import Params
from deconvnet.data import classes
from deconvnet.networks import build, weights
from deconvnet.networks.deconvnet import DeconvNet
from deconvnet.networks.fuse import fold_batch_norm

VARIANTS = ("one_stage", "no_batch_norm", "no_batch_norm_he", "bilinear")


class BilinearDeconvNet(DeconvNet):
    """The layers and parameters of DeconvNet; the decoder gets no switches."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pools, _ = self.encoder(x)
        x = self.fc6_deconv(self.encoder.fc7(self.encoder.fc6(pools[-1])))
        for block in self.decoder:
            x = block(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
        return self.score(x)


def make_variant(variant: str, settings: Params) -> DeconvNet:
    """The network of a variant with the weights of models/backbone in its encoder, the decoder newly initialised.

    Raises ValueError for a name that is not one of VARIANTS.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is one of {', '.join(VARIANTS)}, not {variant}")
    if variant == "one_stage":
        return weights.initialise(build.make_deconvnet(settings), settings.weights.deconvnet)
    n = settings.network
    shape = {"classes": len(classes.current()), "blocks": n.blocks, "fc": n.fc, "size": n.size, "std": n.pixel_std}
    if variant == "bilinear":
        net = build.for_device(BilinearDeconvNet(**shape, bn_eps=n.bn_eps))
        return weights.initialise(net, settings.weights.deconvnet)
    start = weights.initialise(build.make_deconvnet(settings), settings.weights.deconvnet)
    net = build.for_device(DeconvNet(**shape, bn_eps=None)).to(machine.device(), memory_format=torch.channels_last)
    net.encoder.load_state_dict(fold_batch_norm(start.eval()).encoder.state_dict())
    return he_initialise(net) if variant == "no_batch_norm_he" else net


def he_initialise(net: DeconvNet) -> DeconvNet:
    """Initialises the decoder as by He et al.: without batch norm, signals keep their size from layer to layer.

    A transposed convolution's weight is (in, out, height, width), so the inputs of one output are torch's fan_out. In
    fc6-deconv, whose input is one cell, only one cell of the kernel reaches an output.
    """
    for layer in net.decoder.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    first = net.fc6_deconv.conv.weight
    nn.init.kaiming_normal_(first, mode="fan_out", nonlinearity="relu")
    with torch.no_grad():
        first.mul_(first.shape[-1])
    nn.init.kaiming_normal_(net.score.weight, nonlinearity="linear")
    return net

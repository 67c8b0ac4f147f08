"""DeconvNet without one of the things that the paper says it needs (claims C6, C7 and C8), from the same backbone.

one_stage         stage 2's examples only, for as many updates as both stages have
no_batch_norm     the encoder's batch norms folded into its weights, none in the decoder
no_batch_norm_he  the same, the decoder drawn as He et al. (2015): with std 0.01, batch norm lacking, signals die out
bilinear          ×2 bilinear upsampling in place of unpooling
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from deconvnet import backbone, machine, training
from deconvnet.examples import Batches
from deconvnet.folding import fold
from deconvnet.network import DeconvNet
from deconvnet.params import Crops, Params

VARIANTS = ("one_stage", "no_batch_norm", "no_batch_norm_he", "bilinear")


class BilinearDeconvNet(DeconvNet):
    """The layers and parameters of DeconvNet; the decoder sees no switches."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pools, _ = self.encoder(x)
        x = self.fc6_deconv(self.encoder.fc7(self.encoder.fc6(pools[-1])))
        for block in self.decoder:
            x = block(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
        return self.score(x)


def make(variant: str, settings: Params) -> DeconvNet:
    """The network of a variant with the weights of models/backbone in its encoder, the decoder drawn afresh."""
    n = settings.network
    shape = {"blocks": n.blocks, "fc": n.fc, "size": n.size, "std": n.pixel_std}
    if variant == "one_stage":
        return backbone.start(DeconvNet(**shape, bn_eps=n.bn_eps), settings.weights.deconvnet)
    if variant == "bilinear":
        return backbone.start(BilinearDeconvNet(**shape, bn_eps=n.bn_eps), settings.weights.deconvnet)
    if variant in ("no_batch_norm", "no_batch_norm_he"):
        start = backbone.start(backbone.make_deconvnet(settings), settings.weights.deconvnet)
        net = DeconvNet(**shape, bn_eps=None).to(machine.device(), memory_format=torch.channels_last)
        net.encoder.load_state_dict(fold(start.eval()).encoder.state_dict())
        return draw_as_he(net) if variant == "no_batch_norm_he" else net
    raise ValueError(f"variant is one of {', '.join(VARIANTS)}, not {variant}")


def draw_as_he(net: DeconvNet) -> DeconvNet:
    """Draws the decoder's weights as He et al.: signals keep their size from layer to layer without batch norm.

    A transposed convolution's weight is (in, out, height, width), so that what meets in an output is torch's fan_out;
    in fc6-deconv, whose input is one cell, only one of its kernel's cells meets.
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


def stages(variant: str, settings: Params) -> list[tuple[int, Crops]]:
    """(whose examples, solver) of each training in turn. The sum of the updates is the same for every variant."""
    if variant == "one_stage":
        both = settings.stage1.updates + settings.stage2.updates
        return [(2, settings.stage2.model_copy(update={"updates": both}))]
    return [(1, settings.stage1), (2, settings.stage2)]


def scaled(solver: Crops, factor: float, updates: int | None = None) -> Crops:
    """The solver with `factor` times its learning rate and, if given, fewer updates."""
    return solver.model_copy(update={"lr": factor * solver.lr, "updates": updates or solver.updates})


def try_rate(variant: str, settings: Params, factor: float, updates: int, batches: Batches, watch: Batches) -> float:
    """Dev loss after a short first training with `factor` times the learning rate; infinite if it diverges.

    What helps the whole network to train fast may hurt one without batch norm: every variant gets the rate that suits
    it, chosen on dev, before it is compared.
    """
    solver = scaled(stages(variant, settings)[0][1], factor, updates)
    torch.manual_seed(solver.seed)
    short = batches.like(updates, solver.batch)
    try:
        curve = training.train(make(variant, settings), short, solver, watch=watch)
    except FloatingPointError:
        return math.inf
    return float(curve["dev_loss"].iloc[-1])

"""What the networks cost in floating-point operations, counted by torch without computing anything."""

from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deconvnet.config.schema import Params
from deconvnet.networks import build


def cost(net: nn.Module, height: int, width: int) -> dict[str, float]:
    """FLOP of one image in training (forward and backward) and in inference, and bytes of parameters and of the layer
    outputs that training one image keeps. `net` is on the meta device: nothing is computed.
    """
    outputs = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda module, inputs, output: outputs.append(4 * output.numel()))
    with FlopCounterMode(display=False) as forward:
        scores = net(torch.rand(2, 3, height, width, device="meta"))  # batch norm needs two images
    with FlopCounterMode(display=False) as backward:
        scores.sum().backward()
    inference = forward.get_total_flops() / 2
    parameters = 4 * sum(parameter.numel() for parameter in net.parameters())
    training = inference + backward.get_total_flops() / 2
    return {"training": training, "inference": inference, "parameters": parameters, "outputs": sum(outputs) / 2}


def inference(params: Params, shapes: Iterable[tuple[int, int]]) -> dict[str, float]:
    """FLOP of each network's forward passes for one image, the mean over images of these (height, width) in px.

    DeconvNet scores `inference.num_proposals` crops of an image, whatever its size; FCN-8s the whole image, at least
    as large as `inference.fcn_canvas`.
    """
    with torch.device("meta"):
        deconvnet, fcn = build.make_deconvnet(params), build.make_fcn(params)
    crop = cost(deconvnet, deconvnet.size, deconvnet.size)["inference"]
    canvas = params.inference.fcn_canvas or 0
    sizes = Counter((max(height, canvas), max(width, canvas)) for height, width in shapes)
    whole = sum(count * cost(fcn, *size)["inference"] for size, count in sizes.items()) / sizes.total()
    return {"deconvnet": params.inference.num_proposals * crop, "fcn8s": whole}

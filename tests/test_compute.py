"""Floating-point operations, against a count of the convolutions by hand, and where the numbers are stated."""

import re

import pytest
import torch
from torch import nn

from deconvnet.config import params
from deconvnet.config.paths import ROOT
from deconvnet.evaluation import compute
from deconvnet.networks import build
from deconvnet.report import captions


def settings(profile: str) -> params.Params:
    return params.validate(params.compose(profile), profile)


def by_hand(net: nn.Module, height: int, width: int) -> int:
    """2 FLOP for each product: k² · channels in · channels out, at each output of a convolution or each input of a
    transposed one.
    """
    total = 0

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        a, b, *kernel = module.weight.shape
        places = (inputs[0] if isinstance(module, nn.ConvTranspose2d) else output).shape[-2:].numel()
        total += 2 * places * a * b * kernel[0] * kernel[1]

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(count)
    net(torch.rand(1, 3, height, width, device="meta"))
    return total


@pytest.mark.parametrize(("profile", "shape"), [("icons", (120, 160)), ("smoke", (120, 160)), ("voc2012", (500, 500))])
def test_inference_is_counted_as_by_hand(profile, shape):
    chosen = settings(profile)
    with torch.device("meta"):
        deconvnet, fcn = build.make_deconvnet(chosen).eval(), build.make_fcn(chosen).eval()
    found = compute.inference(chosen, [shape])
    proposals = chosen.inference.num_proposals
    assert found["deconvnet"] == proposals * by_hand(deconvnet, deconvnet.size, deconvnet.size)
    assert found["fcn8s"] == by_hand(fcn, *shape)


def test_fcn_pays_for_each_image_and_deconvnet_for_its_proposals():
    icons = settings("icons")
    small, large = (compute.inference(icons, [shape]) for shape in ((64, 64), (128, 128)))
    assert large["fcn8s"] > 3 * small["fcn8s"]
    assert large["deconvnet"] == small["deconvnet"]
    assert compute.inference(icons, [(64, 64), (128, 128), (128, 128)])["fcn8s"] == pytest.approx(
        (small["fcn8s"] + 2 * large["fcn8s"]) / 3
    )


def test_an_image_smaller_than_the_canvas_costs_as_much_as_the_canvas():
    paper = settings("voc2012")
    on_500 = paper.model_copy(update={"inference": paper.inference.model_copy(update={"fcn_canvas": 500})})
    assert compute.inference(on_500, [(375, 500)]) == compute.inference(on_500, [(500, 500)])
    assert (
        compute.inference(on_500, [(375, 500)])["fcn8s"]
        > compute.inference(
            on_500.model_copy(update={"inference": paper.inference.model_copy(update={"fcn_canvas": None})}),
            [(375, 500)],
        )["fcn8s"]
    )


def test_the_caption_states_the_cost_of_training_and_of_inference():
    training = {name: {"flops": flops} for name, flops in (("stage1", 1e12), ("stage2", 2e12), ("fcn8s", 4e12))}
    text = captions.caption(settings("icons"), "val", 3, "abc", training, {"deconvnet": 9e9, "fcn8s": 0.5e9})
    assert "DeconvNet 3.0 TFLOP, FCN-8s 4.0 TFLOP. " in text
    assert text.endswith("DeconvNet 9.00 GFLOP (50 proposals), FCN-8s 0.50 GFLOP: 18.0 times as many.")


def test_the_default_says_what_its_network_costs():
    """conf/icons.yaml: "1/370 of the paper's operations per proposal"."""
    crops = [
        compute.inference(chosen, [(64, 64)])["deconvnet"] / chosen.inference.num_proposals
        for chosen in map(settings, ("icons", "voc2012"))
    ]
    (stated,) = re.findall(r"# 1/(\d+) of the paper's operations", (ROOT / "conf" / "icons.yaml").read_text())
    assert int(stated) == pytest.approx(crops[1] / crops[0], rel=0.01)

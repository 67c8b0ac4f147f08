"""The networks that the settings and the data set's classes describe, with their layers for the device at hand."""

import torch
from torch import nn

from deconvnet.config import machine
from deconvnet.config.schema import Params
from deconvnet.data import classes
from deconvnet.networks.deconvnet import DeconvNet, Encoder
from deconvnet.networks.fcn import FCN8s
from deconvnet.networks.fuse import use_gpu_layers


class Classifier(nn.Module):
    """(N, 3, size, size) RGB in 0–255 → (N, classes) scores: the encoder, its fc layers, and one linear layer."""

    def __init__(self, encoder: Encoder, fc: int, classes: int = 21):
        super().__init__()
        self.encoder = encoder
        self.score = nn.Linear(fc, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pools, _ = self.encoder(x)
        return self.score(self.encoder.fc7(self.encoder.fc6(pools[-1])).flatten(1))


def for_device(network: nn.Module) -> nn.Module:
    return use_gpu_layers(network) if machine.device().type == "cuda" else network


def make_deconvnet(params: Params, number: int | None = None) -> DeconvNet:
    """`number`, here and below, is that of the classes, by default of this run's."""
    n = params.network
    shape = {"blocks": n.blocks, "fc": n.fc, "size": n.size, "std": n.pixel_std}
    return for_device(DeconvNet(number or len(classes.current()), **shape, bn_eps=n.bn_eps))


def make_fcn(params: Params, number: int | None = None) -> FCN8s:
    n, fcn = params.network, params.fcn
    bn_eps = n.bn_eps if fcn.batch_norm else None
    shape = {"blocks": n.blocks, "fc": n.fc, "size": n.size, "std": n.pixel_std}
    more = {"dropout": fcn.dropout, "padding": fcn.padding}
    return for_device(FCN8s(number or len(classes.current()), **shape, bn_eps=bn_eps, **more))


def make_classifier(params: Params) -> Classifier:
    """Of the backbone's training: DeconvNet's encoder with one linear layer on top."""
    return Classifier(make_deconvnet(params).encoder, params.network.fc, len(classes.current()))

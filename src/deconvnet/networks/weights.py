"""Weights: where the encoder's come from, and how they are saved and loaded.

The paper starts from VGG-16 trained on ILSVRC (section 3.1). Profiles of VGG's shape take it from torchvision or from
a file; the small ones train a classifier of crops, which takes the place of ImageNet. Weights are safetensors files, so
that loading one never executes anything.
"""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import nn

from deconvnet.config import machine
from deconvnet.config.errors import UserError
from deconvnet.config.paths import MODELS
from deconvnet.config.schema import Backbone, Weights
from deconvnet.networks import caffe, vgg_file
from deconvnet.networks.deconvnet import VGG16, Encoder
from deconvnet.utils.files import write_atomic


def vgg16_state(encoder: Encoder, source: nn.Module) -> dict[str, torch.Tensor]:
    """The convolution weights of torchvision's plain VGG-16, fc6 and fc7 too, under this project's names.

    torchvision's network gets (RGB / 255 - m) / s, ours (RGB - mean) / std: the scale goes into the first layer, and
    the encoder's mean becomes 255 m.
    """
    from torchvision.models import VGG16_Weights  # late, here and below: the import takes seconds

    convolutions = [m for m in source.features if isinstance(m, nn.Conv2d)]
    fc6, fc7 = source.classifier[0], source.classifier[3]
    names = [name for name, m in encoder.named_modules() if isinstance(m, nn.Conv2d)]
    shapes = {name: m.weight.shape for name, m in encoder.named_modules() if isinstance(m, nn.Conv2d)}
    state = {}
    for name, layer in zip(names, [*convolutions, fc6, fc7], strict=True):
        state[f"{name}.weight"] = layer.weight.detach().reshape(shapes[name]).clone()
        state[f"{name}.bias"] = layer.bias.detach().clone()
    preset = VGG16_Weights.IMAGENET1K_V1.transforms()
    mean, std = torch.tensor(preset.mean), torch.tensor(preset.std)
    state[f"{names[0]}.weight"] *= encoder.std / (255 * std.view(1, 3, 1, 1))
    state["mean"] = 255 * mean.view(1, 3, 1, 1)
    return state


def plain_encoder(encoder: Encoder) -> Encoder:
    """An encoder of the same shape without batch norm, which VGG-16's files fit."""
    fc6 = encoder.fc6.conv
    return Encoder(encoder.shape, fc6.out_channels, fc6.kernel_size[0], None, encoder.std)


def download_vgg16() -> nn.Module:
    """torchvision's plain VGG-16, 528 MB, from its cache or downloaded, checked by its hash. Raises UserError."""
    from torchvision.models import VGG16_Weights, vgg16

    preset = VGG16_Weights.IMAGENET1K_V1
    path = Path(torch.hub.get_dir()) / "checkpoints" / preset.url.rsplit("/", 1)[1]
    try:
        net = vgg16()
        net.load_state_dict(preset.get_state_dict(check_hash=True, weights_only=True))  # executes nothing
        return net
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # no network, a wrong hash, a half file
        raise UserError(
            f"VGG-16's weights could not be downloaded from {preset.url} ({error}). If {path} exists, delete it; "
            "then run it again, or put the file there by hand."
        ) from None


def start_from_vgg16(encoder: Encoder, backbone: Backbone) -> list[str]:
    """ImageNet weights into the encoder's convolutions, from the source that the settings name: vgg16, caffe or file.

    Returns the layers that keep their own initial weights: fc6 and fc7 if a file has none that fit. Raises UserError.
    """
    if encoder.shape != VGG16:
        raise UserError("VGG-16's weights need network.blocks of VGG-16; a smaller network needs source: train.")
    if backbone.source == "vgg16":
        state = vgg16_state(encoder, download_vgg16())
    elif backbone.source == "caffe":
        state = caffe.load(plain_encoder(encoder), Path(backbone.path)).state_dict()
    else:
        state = vgg_file.vgg_state(encoder, Path(backbone.path), backbone.channel_order, backbone.mean)
    encoder.load_state_dict(state, strict=False)
    return [name for name in ("fc6", "fc7") if f"{name}.conv.weight" not in state]


def initialise(net: nn.Module, weights: Weights) -> nn.Module:
    """`net` on the device as its training starts: with the backbone in its encoder, or with published weights.

    Raises UserError.
    """
    if weights.source == "caffe":
        caffe.load(net, Path(weights.path))
    else:
        load(net.encoder, "backbone", strict=False)
    return net.to(machine.device(), memory_format=torch.channels_last)


def save(module: nn.Module, name: str, folder: Path = MODELS) -> Path:
    path = folder / f"{name}.safetensors"
    write_atomic(path, serialise({k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}))
    return path


def load(module: nn.Module, name: str, folder: Path = MODELS, *, strict: bool = True) -> nn.Module:
    """Loads models/<name> into `module`, on the device, in inference mode. Raises UserError if they do not fit."""
    path = folder / f"{name}.safetensors"
    try:
        state = load_file(path)
        missing = [key for key in module.state_dict() if key not in state]
        module.load_state_dict(state, strict=strict)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the stage that trains it (make repro).") from None
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a complete safetensors file ({error}): delete it and run its stage again."
        ) from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path} is of another network, or other classes, than params.yaml and data/voc describe: {reason}"
        ) from None
    if not strict and any(".conv." in key for key in missing):
        raise UserError(f"{path} lacks {len(missing)} tensors that the encoder needs, {missing[0]} first.")
    return module.to(machine.device(), memory_format=torch.channels_last).eval()

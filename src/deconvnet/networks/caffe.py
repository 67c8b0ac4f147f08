"""Reads the weights that the authors of DeconvNet, FCN-8s and VGG-16 published as .caffemodel files, without Caffe.

    python -m deconvnet.networks.caffe DeconvNet_trainval_inference.caffemodel deconvnet.safetensors
    python -m deconvnet.networks.caffe --network fcn8s fcn-8s-pascal.caffemodel fcn8s.safetensors

A .caffemodel is a protobuf message; only the few fields that hold layer names and weights are declared here. Caffe's
networks get BGR pixels less the mean, ours RGB; its fully connected layers are matrices, ours convolutions.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from safetensors.torch import save_file
from torch import nn

from deconvnet.config.errors import UserError
from deconvnet.networks.deconvnet import DeconvNet
from deconvnet.networks.fcn import FCN8s

INFERENCE_MEAN_RGB = (122.67891434, 116.66876762, 104.00698793)  # of the release's inference script (there BGR)
# message → field → (number, type); a type that names a message is repeated. Weights are packed floats, which on the
# wire are bytes: read as such, a gigabyte costs no Python objects.
PROTO = {
    "Blob": {"data": (5, "bytes"), "double_data": (8, "bytes")},
    "V1Layer": {"name": (4, "bytes"), "blobs": (6, "Blob")},
    "Layer": {"name": (1, "bytes"), "blobs": (7, "Blob")},
    "Net": {"layers": (2, "V1Layer"), "layer": (100, "Layer")},
}


def net_message() -> Message:
    """An empty Net, the part of Caffe's NetParameter that PROTO declares."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffemodel.proto", package="caffemodel", syntax="proto2")
    for name, fields in PROTO.items():
        message = file.message_type.add(name=name)
        for label, (number, kind) in fields.items():
            if kind in PROTO:
                declared = message.field.add(name=label, number=number, label=field.LABEL_REPEATED)
                declared.type, declared.type_name = field.TYPE_MESSAGE, f".caffemodel.{kind}"
            else:
                message.field.add(name=label, number=number, label=field.LABEL_OPTIONAL, type=field.TYPE_BYTES)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffemodel.Net"))()


def read(path: Path) -> dict[str, list[np.ndarray]]:
    """Layer name → its blobs, flat float32 arrays, of a file with V1 or V2 layers. Layers without weights are left out.

    Blobs are flat since Caffe versions wrote the same weights with four dimensions, two and one.
    Raises UserError if the file is absent, cut short, or no caffemodel, or if two layers of one name differ.
    """
    net, layers = net_message(), {}
    try:
        net.ParseFromString(Path(path).read_bytes())
        for layer in [*net.layers, *net.layer]:
            blobs = [np.frombuffer(b.data or b.double_data, "<f4" if b.data else "<f8") for b in layer.blobs]
            if blobs:
                name, blobs = layer.name.decode(errors="replace"), [blob.astype(np.float32) for blob in blobs]
                if name in layers and not same(layers[name], blobs):
                    raise UserError(f"{path} has two layers named {name} with other weights: which one is meant?")
                layers[name] = blobs
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (DecodeError, ValueError):
        raise UserError(f"{path} is not a complete caffemodel: download it again.") from None
    if not layers:
        raise UserError(
            f"{path} holds no layer with weights: it is no caffemodel, or only the description of a network."
        )
    return layers


def same(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return len(some) == len(others) and all(map(np.array_equal, some, others))


FCN_NAMES = {  # ours → the names of the first published files and of the later ones
    "score_fc7": ("score-fr", "score_fr"),
    "up2_fc7": ("score2", "upscore2"),
    "score_pool4": ("score-pool4", "score_pool4"),
    "up2_pool4": ("score4", "upscore_pool4"),
    "score_pool3": ("score-pool3", "score_pool3"),
    "up8": ("upsample", "upscore8"),
}


def caffe_names(path: str) -> tuple[str, ...]:
    """The names that a module of ours, by its path in the network, has in the published files."""
    *_, unit, kind = ["", *path.split(".")]
    if path in FCN_NAMES:
        return FCN_NAMES[path]
    if path == "score":
        return ("seg-score", "seg-score-voc")  # the second [unverified]
    if unit == "fc6_deconv":
        return ("fc6-deconv",) if kind == "conv" else ("fc6-deconv-bn",)
    if kind == "conv":
        return (unit,)
    return ("bn" + unit if unit.startswith("fc") else unit.replace("conv", "bn"),)


def layers_with_weights(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    return ((path, module) for path, module in network.named_modules() if isinstance(module, kinds))


def move_bias(layers: dict[str, list[np.ndarray]], name: str, takes: str) -> dict[str, list[np.ndarray]]:
    """Adds the bias of a layer to that of `takes`, whose output is added to its own, as in the first FCN-8s."""
    if len(layers.get(name, ())) != 2 or len(layers.get(takes, ())) != 2:
        return layers
    (kernel, bias), (other, its_bias) = layers[name], layers[takes]
    if bias.shape != its_bias.shape:
        return layers
    return layers | {name: [kernel], takes: [other, its_bias + bias]}


def fold_scale(layers: dict[str, list[np.ndarray]], name: str, into: str) -> dict[str, list[np.ndarray]]:
    """Multiplies the kernel of a layer by the one factor of the Scale layer before it, as in FCN-8s "at once"."""
    if into not in layers or [blob.size for blob in layers.get(name, ())] != [1]:
        return layers
    (factor,), (kernel, *bias) = layers[name], layers[into]
    return {key: blobs for key, blobs in layers.items() if key != name} | {into: [factor * kernel, *bias]}


def is_classifier(name: str, layers: dict[str, list[np.ndarray]], encoder: nn.Module) -> bool:
    """Whether a layer is fully connected and behind fc7, as VGG-16's fc8: an encoder can do without it.

    Any other layer changes what its followers get, even one that only scales.
    """
    names, sizes = list(layers), [blob.size for blob in layers[name]]
    behind = "fc7" in names[: names.index(name)]
    return behind and len(sizes) == 2 and sizes[0] == sizes[1] * encoder.fc7.conv.out_channels


def convert(network: nn.Module, layers: dict[str, list[np.ndarray]]) -> dict[str, torch.Tensor]:
    """`network`'s state_dict with the weights of `layers`; `network` is a DeconvNet, an FCN8s or an Encoder.

    Batch norm: the release's inference file holds the scale and shift that its averaged statistics were folded into,
    so ours get mean 0 and variance 1. A file from training holds no statistics at all: `batch_norm.fix_batch_norm`
    must then follow. Raises UserError naming layers that are missing, have another number of weights, or have weights
    and no place in `network`: what they do would be lost.
    """
    state, problems = {key: value.clone() for key, value in network.state_dict().items()}, []
    layers = move_bias(layers, "score2", "score-pool4")
    for pool in ("pool3", "pool4"):
        layers = fold_scale(layers, f"scale_{pool}", f"score_{pool}")
    unused = dict.fromkeys(layers)
    for path, module in layers_with_weights(network):
        found = [name for name in caffe_names(path) if name in layers]
        if not found:
            problems.append(f"{' or '.join(caffe_names(path))} is missing")
            continue
        del unused[found[0]]
        blobs, keys = layers[found[0]], [f"{path}.{name}" for name, _ in module.named_parameters()]
        sizes, expected = [blob.size for blob in blobs], [state[key].numel() for key in keys]
        if sizes != expected:
            problems.append(f"{found[0]} has {sizes} weights where this network has {expected}")
            continue
        state |= {k: torch.from_numpy(b.copy()).view_as(state[k]) for k, b in zip(keys, blobs, strict=True)}
        if isinstance(module, nn.BatchNorm2d):
            state[f"{path}.weight"] *= (1 + module.eps) ** 0.5
            state[f"{path}.running_mean"].zero_()
            state[f"{path}.running_var"].fill_(1)
    encoder = getattr(network, "encoder", network)
    if encoder is network:
        unused = {name: None for name in unused if not is_classifier(name, layers, encoder)}
    if unused:
        problems.insert(0, f"this network has no place for the weights of {', '.join(unused)}")
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"The caffemodel is of another network: {'; '.join(problems[:5])}{more}.")
    prefix = "" if encoder is network else "encoder."
    first = f"{prefix}blocks.0.conv1_1.conv.weight"
    state[first] = state[first].flip(1) * encoder.std
    state[f"{prefix}mean"] = torch.tensor(INFERENCE_MEAN_RGB).view(1, 3, 1, 1)
    return state


def load(network: nn.Module, path: Path) -> nn.Module:
    """`network` with the weights of a .caffemodel. Raises UserError, as `read` and `convert` do."""
    layers = read(path)
    try:
        network.load_state_dict(convert(network, layers))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return network


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m deconvnet.networks.caffe", description="A .caffemodel as safetensors."
    )
    parser.add_argument("caffemodel", type=Path)
    parser.add_argument("safetensors", type=Path)
    parser.add_argument("--network", choices=("deconvnet", "fcn8s", "vgg16"), default="deconvnet")
    arguments = parser.parse_args()
    network = FCN8s() if arguments.network == "fcn8s" else DeconvNet()
    if arguments.network == "vgg16":
        network = DeconvNet(bn_eps=None).encoder
    try:
        load(network, arguments.caffemodel)
    except UserError as error:
        sys.exit(f"\n{error}\n")
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, arguments.safetensors)
    print(f"{len(network.state_dict())} tensors -> {arguments.safetensors}")


if __name__ == "__main__":
    main()

"""Reads VGG-16's weights from an .npz or .safetensors file with one tensor per name: backbone.source file.

conv1_1.weight (64, 3, 3, 3), as (out, in, height, width), conv1_1.bias (64,), … conv5_3.bias; fc6 and fc7 if the file
has them, as convolutions or as matrices whose rows run over (channel, y, x). Pixels are 0–255 less a mean, not scaled.
Whether the first layer takes them as RGB or BGR cannot be seen from its weights: the settings say so.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from deconvnet.config.errors import UserError
from deconvnet.networks.deconvnet import Encoder


def read(path: Path) -> dict[str, torch.Tensor]:
    """Name → tensor. Executes nothing in the file. Raises UserError if it is absent, cut short, or of another kind."""
    if path.suffix not in (".npz", ".safetensors"):
        raise UserError(f"{path} is neither an .npz nor a .safetensors file, which backbone.source file reads.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    except Exception as error:  # zipfile, zlib, numpy and safetensors raise a dozen kinds
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is not a complete {path.suffix} file of tensors ({reason}): copy or download it again."
        ) from None


def vgg_state(encoder: Encoder, path: Path, channel_order: str, mean: Sequence[float]) -> dict[str, torch.Tensor]:
    """The weights in the file under the encoder's names, for RGB pixels, and the mean; float32.

    `mean`, 0–255, is in the file's `channel_order`, "RGB" or "BGR". fc6 and fc7 are left out unless the file has both
    in the encoder's shape: fc7 is of no use behind another fc6. Batch norm has no place in such a file. Raises
    UserError naming every tensor that is missing, has another shape, or is of no layer of the encoder; fc8, VGG's
    classifier, is passed over.
    """
    tensors, own = read(path), encoder.state_dict()
    places = {".".join(key.split(".")[-3::2]): key for key in own if ".conv." in key}  # conv1_1.weight → its key
    shapes = {name: own[key].shape for name, key in places.items()}

    fc = [name for name in places if name.startswith("fc")]
    # A matrix is as good as a convolution.
    forms = {name: (shapes[name], (shapes[name][0], shapes[name][1:].numel())) for name in fc}
    without_fc = any(name not in tensors or tensors[name].shape not in forms[name] for name in fc)
    needed = [name for name in places if not (without_fc and name in fc)]

    problems = [f"{name} is missing" for name in needed if name not in tensors]
    problems += [f"{name} is no tensor of VGG-16" for name in tensors if name not in places and name[:4] != "fc8."]
    for name in tensors.keys() & set(needed):
        tensor = tensors[name]
        if name not in fc and tensor.shape != shapes[name]:
            problems.append(f"{name} has the shape {tuple(tensor.shape)} instead of {tuple(shapes[name])}")
        elif not tensor.is_floating_point() or not tensor.isfinite().all():
            problems.append(f"{name} holds other values than finite floating-point numbers")
    if problems:
        raise UserError(
            f"{path} does not hold this encoder's weights: {'; '.join(sorted(problems))}. Write it with the names and "
            "shapes that docs/running.md lists, or take another backbone.source."
        )

    state = {places[name]: tensors[name].float().reshape(shapes[name]) for name in needed}
    first, rgb_mean = places["conv1_1.weight"], torch.tensor(mean, dtype=torch.float32)
    if channel_order == "BGR":
        state[first], rgb_mean = state[first].flip(1), rgb_mean.flip(0)
    state[first] = state[first] * encoder.std  # the encoder divides pixels by it
    return state | {"mean": rgb_mean.view(1, 3, 1, 1)}

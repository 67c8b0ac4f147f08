"""A weights file: the networks of a run in one safetensors file, with a card that says what they are.

The two segmentation networks' kernels are float16 there. All else keeps its type. Batch norm and biases are a hundredth
of the bytes, and a variance can lie beyond what float16 holds. The boundary detector decides which proposals there are:
rounded, it moved DeconvNet's mean IoU by more than 0.1 points. The card is JSON, in the file's metadata.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from deconvnet.config.errors import UserError

NETWORKS = ("deconvnet", "fcn8s", "boundaries")
State = dict[str, torch.Tensor]


def pack(networks: dict[str, State], card: dict) -> bytes:
    """The file's content: a network's tensors are named after it. The same input gives the same bytes.

    Raises UserError for a weight that is not finite in float16.
    """
    tensors = {
        f"{network}.{name}": in_half(f"{network}.{name}", tensor)
        for network, state in networks.items()
        for name, tensor in state.items()
    }
    return serialise(tensors, metadata={"card": json.dumps(card, sort_keys=True)})


def in_half(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A kernel in float16, any other tensor and the boundary detector's as they are."""
    if name.startswith("boundaries.") or not (name.endswith(".weight") and tensor.ndim == 4):
        return tensor.contiguous()
    half = tensor.half().contiguous()
    if not half.isfinite().all():
        raise UserError(f"{name} has values that float16 cannot hold: the network has diverged.")
    return half


def read(path: Path) -> tuple[dict, dict[str, State]]:
    """The card, and {network: its tensors}. Executes nothing in the file. Raises UserError for another file."""
    try:
        with safe_open(path, "pt") as file:
            card = json.loads((file.metadata() or {})["card"])
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read as a weights file ({error}): name another, or fetch it again."
        ) from None
    except (KeyError, ValueError):
        raise UserError(
            f"{path} has no card, so its settings are unknown: make release writes weights files."
        ) from None
    networks = {}
    for name, tensor in tensors.items():
        network, _, rest = name.partition(".")
        networks.setdefault(network, {})[rest] = tensor
    return card, networks

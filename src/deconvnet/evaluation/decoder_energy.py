"""What the decoder does with an object, layer by layer (section 3.2.3, figure 4, claim C8)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from deconvnet.config import machine
from deconvnet.data.voc import VOID
from deconvnet.evaluation.per_image import PerImageCounts
from deconvnet.images import boxes, crops
from deconvnet.images.boxes import BOX
from deconvnet.images.image_cache import Images
from deconvnet.networks.deconvnet import DeconvNet
from deconvnet.training.examples import only_object


def layer_names(net: DeconvNet) -> list[str]:
    """Of the decoder's maps in the order they are made: what enters a block (unpooled) and what leaves it."""
    numbers = range(len(net.decoder), 0, -1)
    return [name for k in numbers for name in (f"unpool{k}", f"deconv{k}")]


@contextmanager
def recorded_layers(net: DeconvNet) -> Iterator[dict[str, torch.Tensor]]:
    """{layer: (N, C, H, W)} of the last forward pass inside the `with`."""
    maps, hooks = {}, []
    for number, block in zip(range(len(net.decoder), 0, -1), net.decoder, strict=True):

        def keep(module: nn.Module, inputs: tuple, output: torch.Tensor, number: int = number) -> None:
            maps[f"unpool{number}"], maps[f"deconv{number}"] = inputs[0].detach(), output.detach()

        hooks.append(block.register_forward_hook(keep))
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def energy_maps(maps: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) activations → their energy Σa² at each place, (N, H, W), whose sum over what is valid is 1.

    `valid` is (N, S, S) in 0–1, of the input's size: a cell of a coarse map counts by the share of its pixels. What is
    not valid (void, outside of the image) is 0. NaN if there is no energy at all.
    """
    energy = maps.float().square().sum(dim=1) * at_size(valid, maps)
    return energy / energy.sum(dim=(1, 2), keepdim=True)


def at_size(mask: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """(N, S, S) → (N, H, W): the share of each cell's pixels."""
    return F.adaptive_avg_pool2d(mask[:, None].float(), maps.shape[-2:])[:, 0]


def energy_share(energy: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The share of the energy (N, H, W) that lies on the target, for each picture: (N,). In a cell that is partly valid
    the energy is spread evenly over what is valid.
    """
    on_target, known = at_size(target * valid, energy[:, None]), at_size(valid, energy[:, None])
    share = on_target / known.clamp(min=1e-9)
    return (energy * share).sum(dim=(1, 2)) / energy.sum(dim=(1, 2))


def object_crops(images: Images, objects: pd.DataFrame, context: float, size: int) -> tuple[np.ndarray, ...]:
    """Stage 1's crops around objects: images uint8 (N, s, s, 3), and masks of the target and of what is not void."""
    pictures, targets, valids = [], [], []
    extended = boxes.extend(objects[BOX].to_numpy(), context, square=True)
    for o, box in zip(objects.itertuples(), extended, strict=True):
        image, labels, instances = images[o.image]
        kept = only_object(boxes.crop(labels, box, VOID), boxes.crop(instances, box, VOID), o.instance)
        kept = boxes.resize_labels(kept, size)
        pictures.append(boxes.resize_image(boxes.crop(image, box, 0), size))
        targets.append((kept != 0) & (kept != VOID))
        valids.append(kept != VOID)
    return np.stack(pictures), np.stack(targets), np.stack(valids)


@torch.inference_mode()
def forward(net: DeconvNet, pictures: np.ndarray) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The decoder's maps for uint8 (N, s, s, 3) pictures, and the scores (N, 21, s, s)."""
    with recorded_layers(net) as maps:
        scores = net(crops.to_tensor(pictures).to(machine.device(), memory_format=torch.channels_last))
    return maps, scores


@dataclass(frozen=True)
class Batch:
    """Some objects in their crops."""

    objects: pd.DataFrame
    energy: dict[str, torch.Tensor]  # {layer: (N, H, W)}, the sum of each is 1
    target: torch.Tensor  # bool (N, s, s)
    valid: torch.Tensor
    iou: torch.Tensor  # (N,) of the target with what the network labels as its class


def batches(net: DeconvNet, images: Images, objects: pd.DataFrame, context: float, size: int = 64) -> Iterator[Batch]:
    for start in tqdm(range(0, len(objects), size), desc="energy of the decoder", unit="batch", mininterval=1):
        part = objects.iloc[start : start + size]
        pictures, *masks = object_crops(images, part, context, net.size)
        target, valid = (torch.from_numpy(mask).to(machine.device()) for mask in masks)
        maps, scores = forward(net, pictures)
        label = torch.tensor(part["label"].to_numpy(), device=scores.device)
        labelled = (scores.argmax(dim=1) == label[:, None, None]) & valid
        iou = (labelled & target).sum(dim=(1, 2)) / (labelled | target).sum(dim=(1, 2))
        yield Batch(part, {name: energy_maps(m, valid) for name, m in maps.items()}, target, valid, iou)


def energy(net: DeconvNet, images: Images, objects: pd.DataFrame, context: float) -> tuple[pd.DataFrame, ...]:
    """Three tables with a row for each object that is not void only: each layer's share of energy on the target; the
    share that a map has which is the same for every object, namely the mean over all objects of the layer's energy
    maps; and the object's `image`, and the `iou` of what the network labels as its class in the crop.

    Objects are in the centre of their crops. The second share is what a layer has by that alone.
    """
    names = layer_names(net)
    total, count = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for batch in batches(net, images, objects, context):
        for name, maps in batch.energy.items():
            known = maps.isfinite().all(dim=(1, 2))
            total[name] = total[name] + maps[known].sum(dim=0, dtype=torch.float64)
            count[name] += int(known.sum())
    tables = [[pd.DataFrame(columns=names, dtype=float)] for _ in "12"], [pd.DataFrame({"image": [], "iou": []})]
    for batch in batches(net, images, objects, context):
        same = {n: (total[n] / max(count[n], 1)).float() * at_size(batch.valid, m[:, None])
                for n, m in batch.energy.items()}  # fmt: skip
        kept = batch.target.any(dim=2).any(dim=1).cpu().numpy()
        for table, maps in zip(tables[0], (batch.energy, same), strict=True):
            found = {n: energy_share(m, batch.target, batch.valid).cpu().numpy() for n, m in maps.items()}
            table.append(pd.DataFrame(found)[kept])
        tables[1].append(pd.DataFrame({"image": batch.objects["image"].to_numpy(), "iou": batch.iou.cpu()})[kept])
    return tuple(pd.concat(parts[1:] or parts, ignore_index=True) for parts in (*tables[0], tables[1]))


def as_counts(tables: tuple[pd.DataFrame, ...], names: list[str], method: str = "deconvnet") -> PerImageCounts:
    """The tables of `energy` as the claims use them."""
    shares, blind, about = tables
    index = {name: i for i, name in enumerate(names)}
    return {
        f"energy/{method}": shares.to_numpy(np.float32),
        f"energy_blind/{method}": blind.to_numpy(np.float32),
        f"energy_iou/{method}": about["iou"].to_numpy(np.float32),
        f"energy_image/{method}": about["image"].map(index).to_numpy(np.int32),
    }


def selected_and_median(maps: torch.Tensor, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, H, W) → two channels, by their energy on the target (s, s) less that off it: the highest, and the median one.
    Both are divided by the larger of their maxima, so that they can be compared.
    """
    mask = F.adaptive_avg_pool2d(torch.from_numpy(target)[None].float(), maps.shape[-2:])[0].to(maps)
    order = (maps.square() * (2 * mask - 1)).sum(dim=(1, 2)).argsort(stable=True)
    chosen, median = (maps[order[k]].cpu().numpy() for k in (-1, len(order) // 2))
    scale = max(chosen.max(), median.max(), 1e-12)
    return chosen / scale, median / scale


def figure4_panels(net: DeconvNet, picture: np.ndarray, target: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(title, selected channel, median channel) of the paper's nine: the coarsest deconvolution, then unpooling and
    deconvolution of each level.
    """
    maps, _ = forward(net, picture[None])
    panels = []
    for name in layer_names(net)[1:]:
        side = maps[name].shape[-1]
        kind = "unpooling" if name.startswith("unpool") else "last deconvolution"
        panels.append((f"{side}×{side} {kind}", *selected_and_median(maps[name][0], target)))
    return panels

"""What the decoder does with an object, layer by layer (section 3.2.3, figure 4, claim C8)."""

from collections.abc import Iterator
from contextlib import contextmanager

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


def energy_share(maps: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The share of the activations' energy Σa² that lies on the target, for each picture: (N,).

    (N, C, H, W) activations; target and valid (N, S, S) in 0–1, of the input's size: a cell of a coarse map counts by
    the share of its pixels. What is not valid (void, outside of the image) is left out. NaN if there is no energy at
    all.
    """
    side = maps.shape[-2:]
    target, valid = (F.adaptive_avg_pool2d(mask[:, None].float(), side)[:, 0] for mask in (target * valid, valid))
    energy = maps.float().square().sum(dim=1)
    return (energy * target).sum(dim=(1, 2)) / (energy * valid).sum(dim=(1, 2))


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
def forward(net: DeconvNet, pictures: np.ndarray) -> dict[str, torch.Tensor]:
    """The decoder's maps for uint8 (N, s, s, 3) pictures."""
    with recorded_layers(net) as maps:
        net(crops.to_tensor(pictures).to(machine.device(), memory_format=torch.channels_last))
    return maps


def energy(net: DeconvNet, images: Images, objects: pd.DataFrame, context: float, batch: int = 64) -> pd.DataFrame:
    """A row for each object: its image, `chance` (its share of the crop's area) and each layer's share of energy.

    An object that is void only is left out.
    """
    names = layer_names(net)
    tables = [pd.DataFrame(columns=["image", "chance", *names], dtype=float)]
    for start in tqdm(range(0, len(objects), batch), desc="energy of the decoder", unit="batch", mininterval=1):
        part = objects.iloc[start : start + batch]
        pictures, *masks = object_crops(images, part, context, net.size)
        target, valid = (torch.from_numpy(mask).to(machine.device()) for mask in masks)
        shares = {
            name: energy_share(maps, target, valid).cpu().numpy() for name, maps in forward(net, pictures).items()
        }
        chance = (target.float().mean(dim=(1, 2)) / valid.float().mean(dim=(1, 2))).cpu().numpy()
        tables.append(pd.DataFrame({"image": part["image"].to_numpy(), "chance": chance, **shares}))
    table = pd.concat(tables[1:] or tables, ignore_index=True)[["image", "chance", *names]]
    return table[table["chance"] > 0].reset_index(drop=True)


def as_counts(table: pd.DataFrame, names: list[str], source: str) -> PerImageCounts:
    """The table of `energy` as the claims use it: <source>/energy (objects, 1 + layers), of which image each is."""
    index = {name: i for i, name in enumerate(names)}
    return {
        f"{source}/energy": table.drop(columns="image").to_numpy(np.float32),
        f"{source}/energy_image": table["image"].map(index).to_numpy(np.int32),
    }


def representative(maps: torch.Tensor, target: np.ndarray) -> np.ndarray:
    """(C, H, W) → the channel with the most energy on the target (s, s) less the energy off it, scaled to 0–1."""
    mask = F.adaptive_avg_pool2d(torch.from_numpy(target)[None].float(), maps.shape[-2:])[0].to(maps)
    best = (maps.square() * (2 * mask - 1)).sum(dim=(1, 2)).argmax()
    chosen = maps[best].cpu().numpy()
    return chosen / max(chosen.max(), 1e-12)


def figure4_panels(net: DeconvNet, picture: np.ndarray, target: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(title, map) of the paper's nine: the coarsest deconvolution, then unpooling and deconvolution of each level."""
    maps = forward(net, picture[None])
    panels = []
    for name in layer_names(net)[1:]:
        side = maps[name].shape[-1]
        kind = "unpooling" if name.startswith("unpool") else "last deconvolution"
        panels.append((f"{side}×{side} {kind}", representative(maps[name][0], target)))
    return panels

"""The network as the paper prints it: its table 2 and its figures 2 and 3, all made from the network object itself."""

from itertools import pairwise

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Patch, Rectangle
from torch import nn
from torch.nn import functional as F

from deconvnet.networks.deconvnet import DeconvNet
from deconvnet.report.figures import LINES

COLOURS = {
    "convolution": LINES[0], "pooling": LINES[3], "fully connected": LINES[4], "unpooling": LINES[1],
    "deconvolution": LINES[2], "score": "0.3",
}  # fmt: skip


def layers(net: DeconvNet) -> pd.DataFrame:
    """Table 2: a row for each layer in the order of the forward pass; run on the meta device, so that nothing is
    computed. Columns: layer, type, kernel, stride, padding, side, channels, parameters (batch norm's included).
    """
    rows, hooks, size = [], [], net.size

    def add(layer: str, kind: str, kernel: int, stride: int, padding: int, shape: torch.Size, parameters: int) -> None:
        row = {"layer": layer, "type": kind, "kernel": kernel, "stride": stride, "padding": padding}
        rows.append(row | {"side": shape[-1], "channels": shape[1], "parameters": parameters})

    def watch(module: nn.Module, name: str, kind: str, counted: nn.Module) -> None:
        parameters = sum(p.numel() for p in counted.parameters())

        def hook(module: nn.Module, inputs: tuple, out: torch.Tensor) -> None:
            add(name, kind, module.kernel_size[0], module.stride[0], module.padding[0], out.shape, parameters)

        hooks.append(module.register_forward_hook(hook))

    def pool(number: int, block: nn.Module) -> None:
        def hook(module: nn.Module, inputs: tuple, out: torch.Tensor) -> None:
            add(f"pool{number}", "pooling", 2, 2, 0, F.max_pool2d(out, 2).shape, 0)

        hooks.append(block.register_forward_hook(hook))

    def unpool(number: int, block: nn.Module) -> None:
        def hook(module: nn.Module, inputs: tuple) -> None:
            add(f"unpool{number}", "unpooling", 2, 2, 0, inputs[0].shape, 0)

        hooks.append(block.register_forward_pre_hook(hook))

    net = net.to("meta").eval()
    for number, block in enumerate(net.encoder.blocks, start=1):
        for name, part in block.named_children():
            watch(part.conv, name, "convolution", part)
        pool(number, block)
    for name in ("fc6", "fc7"):
        watch(getattr(net.encoder, name).conv, name, "fully connected", getattr(net.encoder, name))
    watch(net.fc6_deconv.conv, "fc6-deconv", "deconvolution", net.fc6_deconv)
    for number, block in zip(range(len(net.decoder), 0, -1), net.decoder, strict=True):
        unpool(number, block)
        for name, part in block.named_children():
            watch(part.conv, name, "deconvolution", part)
    watch(net.score, "seg-score", "score", net.score)
    with torch.no_grad():
        net(torch.zeros(1, 3, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    return pd.DataFrame(rows)


def figure2(networks: dict[str, pd.DataFrame]) -> Figure:
    """A row for each network, {title: its `layers`}, each on a scale of its own: a slab for each layer, whose height
    grows with the square root of its map's side, its width with the logarithm of its channels, which stand below, once
    for neighbours that are alike. Arrows are the switches: where a pooling found its maxima, the unpooling puts them
    back.
    """
    figure, axes = plt.subplots(
        len(networks), 1, figsize=(12, 3.9 * len(networks)), layout="constrained", squeeze=False
    )
    for axis, (title, table) in zip(axes[:, 0], networks.items(), strict=True):
        end, top = slabs(axis, table), table["side"].max() ** 0.5
        axis.set(xlim=(-0.3, end), ylim=(-0.63 * top, 0.83 * top))
        axis.axis("off")
        axis.set_title(title, fontsize=10, loc="left")
    patches = [Patch(color=colour, label=kind) for kind, colour in COLOURS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def slabs(axis: plt.Axes, table: pd.DataFrame) -> float:
    """The layers of one network from left to right; returns where they end."""
    x, last, pooled, gap = 0.0, None, {}, 0.02 * table["side"].max() ** 0.5
    alike = (table[["side", "channels"]].diff() != 0).any(axis=1).cumsum()
    for _, group in table.groupby(alike):
        start, height = x, max(group["side"].iloc[0] ** 0.5, 0.6)
        for row in group.itertuples():
            width = 0.12 * max(len(bin(row.channels)) - 5, 1)
            axis.add_patch(Rectangle((x, -height / 2), width, height, fc=COLOURS[row.type], ec="white", lw=0.6))
            at = x + width / 2, height / 2
            if row.type == "pooling":
                pooled[row.layer[4:]] = at
            elif row.type == "unpooling":
                style = {"arrowstyle": "->", "color": "0.55", "lw": 0.9, "connectionstyle": "arc3,rad=-0.12"}
                axis.annotate("", at, pooled[row.layer[6:]], arrowprops=style | {"shrinkA": 12, "shrinkB": 12})
            x += width + 0.12
        if row.side != last:
            axis.text(start, height / 2 + gap, f"{row.side}×{row.side}", fontsize=8, ha="left", va="bottom")
        last = row.side
        axis.text((start + x - 0.12) / 2, -height / 2 - gap, str(row.channels), fontsize=8, ha="center", va="top")
    return x


def numbers(axis: plt.Axes, values: torch.Tensor, title: str, marked: torch.Tensor | None = None) -> None:
    """A map written out, cell by cell; 0 stays empty, `marked` cells are coloured."""
    height, width = values.shape
    for y in range(height):
        for x in range(width):
            on = marked is not None and bool(marked[y, x])
            axis.add_patch(Rectangle((x, y), 1, 1, fc="#F0E442" if on else "white", ec="0.3", lw=0.8))
            if values[y, x]:
                axis.text(x + 0.5, y + 0.5, f"{values[y, x]:g}", ha="center", va="center", fontsize=9)
    axis.set(xlim=(-0.2, width + 0.2), ylim=(height + 0.2, -0.2), aspect="equal")
    axis.set_title(title, fontsize=9)
    axis.axis("off")


def switches(axis: plt.Axes, where: torch.Tensor, side: int, title: str) -> None:
    """From the middle of each 2×2 an arrow to the cell where its largest value stood."""
    marked = F.one_hot(where, side**2).sum((0, 1)).view(side, side)
    numbers(axis, torch.zeros(side, side), title, marked)
    for (y, x), cell in zip(torch.cartesian_prod(*[torch.arange(side // 2)] * 2), where.flatten(), strict=True):
        end = (cell % side + 0.5, cell // side + 0.5)
        axis.annotate("", end, (2 * x + 1, 2 * y + 1), arrowprops={"arrowstyle": "->", "lw": 1.4, "color": LINES[1]})


def figure3() -> Figure:
    """Pooling, unpooling, convolution and deconvolution, a row each, on numbers that torch computes."""
    figure, axes = plt.subplots(4, 3, figsize=(7.6, 10), layout="constrained")
    x = torch.tensor([[1, 3, 2, 1], [4, 2, 5, 6], [7, 1, 2, 3], [2, 3, 8, 1]], dtype=torch.float)
    pooled, where = F.max_pool2d(x[None], 2, return_indices=True)
    back = F.max_unpool2d(pooled, where, 2)[0]
    numbers(axes[0, 0], x, "pooling: input", back > 0)
    numbers(axes[0, 1], pooled[0], "the largest of each 2×2 …")
    switches(axes[0, 2], where[0], 4, "… and switches: where it stood")
    numbers(axes[1, 0], pooled[0], "unpooling: input …")
    switches(axes[1, 1], where[0], 4, "… and switches")
    numbers(axes[1, 2], back, "each value where it stood", back > 0)

    weights, one, two = torch.arange(1.0, 10).view(3, 3), torch.zeros(5, 5), torch.zeros(5, 5)
    one[2, 2], two[1, 1], two[2, 3] = 1, 1, 10
    flat, ones = x.new_ones(5, 5), torch.ones(1, 1, 3, 3)
    seen = F.conv_transpose2d(one[None, None], ones, padding=1)[0, 0] > 0  # what the output in the middle sees
    summed = F.conv2d(flat[None, None], weights[None, None], padding=1)[0, 0]
    numbers(axes[2, 0], flat, "convolution: 3×3 inputs …", seen)
    numbers(axes[2, 1], weights, "… times 3×3 weights …")
    numbers(axes[2, 2], summed * one, "… make one output", one > 0)
    spread = F.conv_transpose2d(two[None, None], weights[None, None], padding=1)[0, 0]
    numbers(axes[3, 0], two, "deconvolution: each input …", two > 0)
    numbers(axes[3, 1], weights, "… times 3×3 weights …")
    numbers(axes[3, 2], spread, "… makes 3×3 outputs,\nsummed where they overlap", spread > 0)
    for row in axes:
        for left, right in pairwise(row):
            arrow = ConnectionPatch((1.0, 0.5), (0.0, 0.5), "axes fraction", "axes fraction", axesA=left, axesB=right,
                                    arrowstyle="->", color="0.3")  # fmt: skip
            figure.add_artist(arrow)
    return figure

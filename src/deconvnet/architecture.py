"""The network as the paper prints it: its table 2 and its figures 2 and 3, all made from the network object itself."""

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Patch, Rectangle
from torch import nn
from torch.nn import functional as F

from deconvnet.figures import LINES
from deconvnet.network import DeconvNet

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


def figure2(table: pd.DataFrame) -> Figure:
    """A slab for each layer: as high as its map's side (square root), as wide as its channels (logarithm)."""
    figure, axis = plt.subplots(figsize=(12, 3.2), layout="constrained")
    x, last = 0.0, None
    top = table["side"].max() ** 0.5
    for row in table.itertuples():
        width, height = 0.12 * max(len(bin(row.channels)) - 5, 1), max(row.side**0.5, 0.6)
        axis.add_patch(Rectangle((x, -height / 2), width, height, fc=COLOURS[row.type], ec="white", lw=0.6))
        if row.side != last:
            axis.text(x, height / 2 + 0.3, f"{row.side}×{row.side}", fontsize=8, ha="left", va="bottom")
        last, x = row.side, x + width + 0.12
    axis.set(xlim=(-0.3, x), ylim=(-top / 2 - 0.5, top / 2 + 2))
    axis.axis("off")
    patches = [Patch(color=colour, label=kind) for kind, colour in COLOURS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


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


def figure3() -> Figure:
    """Pooling and unpooling with its switches, on numbers that torch computes; convolution and deconvolution."""
    x = torch.tensor([[1, 3, 2, 1], [4, 2, 5, 6], [7, 1, 2, 3], [2, 3, 8, 1]], dtype=torch.float)
    pooled, where = F.max_pool2d(x[None], 2, return_indices=True)
    back = F.max_unpool2d(pooled, where, 2)[0]
    figure, axes = plt.subplots(2, 3, figsize=(8.4, 5.6), layout="constrained")
    numbers(axes[0, 0], x, "input", back > 0)
    numbers(axes[0, 1], pooled[0], "pooling keeps the largest of 2×2,\nand remembers where it stood (switches)")
    numbers(axes[0, 2], back, "unpooling puts it back there", back > 0)
    patch, one = torch.zeros(5, 5), torch.zeros(5, 5)
    patch[1:4, 1:4], one[2, 2] = 1, 1
    numbers(axes[1, 0], torch.zeros(5, 5), "convolution: 3×3 inputs …", patch > 0)
    numbers(axes[1, 1], torch.zeros(5, 5), "… make one output;\ndeconvolution: one input …", one > 0)
    spread = F.conv_transpose2d(one[None, None], torch.ones(1, 1, 3, 3), padding=1)[0, 0]
    numbers(axes[1, 2], torch.zeros(5, 5), "… makes 3×3 outputs,\nsummed where they overlap", spread > 0)
    for left, right in ((axes[0, 0], axes[0, 1]), (axes[0, 1], axes[0, 2]), (axes[1, 0], axes[1, 1]),
                        (axes[1, 1], axes[1, 2])):  # fmt: skip
        arrow = ConnectionPatch((1.0, 0.5), (0.0, 0.5), "axes fraction", "axes fraction", axesA=left, axesB=right,
                                arrowstyle="->", color="0.3")  # fmt: skip
        figure.add_artist(arrow)
    return figure

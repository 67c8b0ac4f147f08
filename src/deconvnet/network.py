"""The deconvolution network of the paper (section 3, its table 2). Imports torch alone, so it can be lifted out.

A VGG encoder that remembers its pooling switches, two fully connected layers written as convolutions, and the
encoder's mirror image: unpooling puts each value back where pooling found it, deconvolution makes the sparse map
dense. Every (de)convolution but the last is followed by batch normalisation and ReLU; there is no dropout.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # (width, convolutions) of each block
MEAN_RGB = (122.675, 116.669, 104.008)  # of the training images, section 4 of the release (there in BGR order)


def unit(layer: nn.Module, width: int, bn_eps: float | None) -> nn.Sequential:
    """layer → batch norm → ReLU; without batch norm if `bn_eps` is None."""
    norm = [] if bn_eps is None else [("bn", nn.BatchNorm2d(width, eps=bn_eps))]
    return nn.Sequential(OrderedDict([("conv", layer), *norm, ("relu", nn.ReLU(inplace=True))]))


class ToOneCell(nn.Conv2d):
    """fc6: on a map of its kernel's size it is the matrix product of a fully connected layer, and on a GPU runs as one:
    cuDNN's convolution took 9 of 85 ms of an update of the paper's network. Elsewhere a convolution.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.product(x) if x.is_cuda and x.shape[2:] == self.kernel_size else super().forward(x)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        rows, weight = (part.permute(0, 2, 3, 1).flatten(1) for part in (x, self.weight))  # views, in channels_last
        return F.linear(rows, weight, self.bias)[..., None, None]


class FromOneCell(nn.ConvTranspose2d):
    """fc6's mirror image, (N, C, 1, 1) → (N, c, k, k): likewise. In inference on a CPU too: there torch's own takes a
    sixth of the time of the paper's network, for three thousandths of its operations.
    """

    as_product = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = x.shape[2:] == (1, 1)
        return self.product(x) if one and (x.is_cuda or self.as_product) else super().forward(x)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.permute(0, 2, 3, 1)  # C × k × k × c
        bias = self.bias.repeat(weight[0, ..., 0].numel())
        return torch.addmm(bias, x.flatten(1), weight.flatten(1)).unflatten(1, weight.shape[1:]).permute(0, 3, 1, 2)


def unpool(x: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) values, each to the place `where` of its 2×2 pixels of (N, C, 2h, 2w); the others are 0."""
    return unpool_on_gpu(x, where) if x.is_cuda else F.max_unpool2d(x, where, 2, 2)


def unpool_on_gpu(x: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """`unpool` of maps in channels_last as they lie: there torch's own would turn them over and back."""
    number, channels, height, width = x.shape
    values, places = (part.permute(0, 2, 3, 1).flatten(1, 2) for part in (x, where))  # N × hw × C
    spread = x.new_zeros(number, 4 * height * width, channels).scatter_(1, places, values)
    return spread.view(number, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


class Encoder(nn.Module):
    """VGG with switches: (N, 3, H, W) RGB in 0–255 → pool1 … pool5 and where each maximum stood.

    Width and number of convolutions of each block, fc width and the side of the fc6 kernel are arguments; H and W
    must be multiples of 2 ** len(blocks). The pixel mean and scale live here as buffers, with the weights that
    expect them. fc6 and fc7 are not applied by `forward`: the two networks use them differently. `round_up`: pooling
    keeps a last odd row and column, as Caffe's does; H and W are then free.
    """

    def __init__(self, blocks: Sequence[tuple[int, int]], fc: int, fc_kernel: int, bn_eps: float | None, std: float):
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1))
        self.std, self.shape = std, tuple(tuple(block) for block in blocks)
        self.blocks, before = nn.ModuleList(), 3
        for number, (width, depth) in enumerate(blocks, start=1):
            block = nn.Sequential()
            for i in range(1, depth + 1):
                block.add_module(f"conv{number}_{i}", unit(nn.Conv2d(before, width, 3, padding=1), width, bn_eps))
                before = width
            self.blocks.append(block)
        self.fc6 = unit(ToOneCell(before, fc, fc_kernel), fc, bn_eps)
        self.fc7 = unit(nn.Conv2d(fc, fc, 1), fc, bn_eps)

    def forward(self, x: torch.Tensor, round_up: bool = False) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        x = ((x - self.mean) / self.std).to(self.fc6.conv.weight.dtype)  # bfloat16 cannot hold the mean
        pools, switches = [], []
        for block in self.blocks:
            x, where = F.max_pool2d(block(x), 2, 2, ceil_mode=round_up, return_indices=True)
            pools.append(x)
            switches.append(where)
        return pools, switches


class DeconvNet(nn.Module):
    """(N, 3, size, size) RGB in 0–255 → (N, classes, size, size) raw scores.

    With no arguments it is the paper's network: 224×224, 251,805,653 parameters, 29 batch norms. The small profiles
    are the same class with narrower, shallower blocks. `bn_eps` and the 0.001 shift are the release's values.
    """

    def __init__(
        self,
        classes: int = 21,
        blocks: Sequence[tuple[int, int]] = VGG16,
        fc: int = 4096,
        size: int = 224,
        bn_eps: float | None = 1e-9,
        std: float = 1.0,
    ):
        super().__init__()
        stride = 2 ** len(blocks)
        if size % stride:
            raise ValueError(f"size {size} is not a multiple of {stride}, the stride of {len(blocks)} poolings")
        self.size, kernel = size, size // stride
        self.encoder = Encoder(blocks, fc, kernel, bn_eps, std)
        widths = [width for width, _ in blocks]
        self.fc6_deconv = unit(FromOneCell(fc, widths[-1], kernel), widths[-1], bn_eps)
        self.decoder = nn.ModuleList()
        for number, (width, depth) in reversed(list(enumerate(blocks, start=1))):
            # The last deconvolution of a block narrows to the width of the block below, as pooling is undone there.
            below = widths[max(number - 2, 0)]
            block = nn.Sequential()
            for i in range(1, depth + 1):
                out = below if i == depth else width
                layer = nn.ConvTranspose2d(width, out, 3, padding=1)
                block.add_module(f"deconv{number}_{i}", unit(layer, out, bn_eps))
            self.decoder.append(block)
        self.score = nn.Conv2d(widths[0], classes, 1)  # the paper's table prints pad 1 here: a misprint
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        """Section 2 of the release: Gaussian of std 0.01 for the decoder; a backbone replaces the encoder's weights."""
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.001)
        elif isinstance(module, nn.ConvTranspose2d) or module is self.score:
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pools, switches = self.encoder(x)
        x = self.encoder.fc7(self.encoder.fc6(pools[-1]))  # N × fc × 1 × 1
        x = self.fc6_deconv(x)
        for block, where in zip(self.decoder, reversed(switches), strict=True):
            x = block(unpool(x, where))
        return self.score(x)

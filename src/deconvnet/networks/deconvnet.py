"""The deconvolution network of the paper (section 3.1 and table 2). Imports torch alone, so that it can be copied out.

A VGG encoder that remembers its pooling switches, two fully connected layers written as convolutions, and the mirror
image of the encoder: unpooling (3.2.1) puts each value back where pooling found it, deconvolution (3.2.2) makes the
sparse map dense. Every (de)convolution but the last is followed by batch normalisation and ReLU; there is no dropout.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # (width, convolutions) of each block
MEAN_RGB = (122.675, 116.669, 104.008)  # of the training images, as in the release's train.prototxt (there BGR)


def conv_bn_relu(layer: nn.Module, width: int, bn_eps: float | None) -> nn.Sequential:
    """layer → batch norm → ReLU; without batch norm if `bn_eps` is None."""
    norm = [] if bn_eps is None else [("bn", nn.BatchNorm2d(width, eps=bn_eps))]
    return nn.Sequential(OrderedDict([("conv", layer), *norm, ("relu", nn.ReLU(inplace=True))]))


class Encoder(nn.Module):
    """VGG with switches: (N, 3, H, W) RGB in 0–255 → pool1 … pool5, and the index of each maximum.

    `blocks` holds the width and the number of convolutions of each block; H and W must be multiples of
    2 ** len(blocks). The pixel mean and scale are part of the encoder, like the weights that expect them. fc6 and fc7
    are not applied by `forward`, since the two networks use them differently. With `round_up` pooling keeps a last odd
    row and column, as Caffe does; H and W are then free.
    """

    def __init__(self, blocks: Sequence[tuple[int, int]], fc: int, fc_kernel: int, bn_eps: float | None, std: float):
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1))
        self.std, self.shape = std, tuple(tuple(block) for block in blocks)
        self.blocks, in_width = nn.ModuleList(), 3
        for number, (width, depth) in enumerate(blocks, start=1):
            block = nn.Sequential()
            for i in range(1, depth + 1):
                layer = nn.Conv2d(in_width, width, 3, padding=1)
                block.add_module(f"conv{number}_{i}", conv_bn_relu(layer, width, bn_eps))
                in_width = width
            self.blocks.append(block)
        self.fc6 = conv_bn_relu(nn.Conv2d(in_width, fc, fc_kernel), fc, bn_eps)
        self.fc7 = conv_bn_relu(nn.Conv2d(fc, fc, 1), fc, bn_eps)

    def forward(self, x: torch.Tensor, round_up: bool = False) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        x = ((x - self.mean) / self.std).to(self.fc6.conv.weight.dtype)  # bfloat16 cannot hold the mean
        pools, switches = [], []
        for block in self.blocks:
            x, indices = F.max_pool2d(block(x), 2, 2, ceil_mode=round_up, return_indices=True)
            pools.append(x)
            switches.append(indices)
        return pools, switches


class DeconvNet(nn.Module):
    """(N, 3, size, size) RGB in 0–255 → (N, classes, size, size) raw scores.

    Without arguments it is the paper's network: 224×224, 251,805,653 parameters, 29 batch norms. The small profiles
    are the same class with narrower, shallower blocks. `bn_eps` and the shift of 0.001 are the release's values.
    Raises ValueError if `size` is not a multiple of the stride.
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
        self.fc6_deconv = conv_bn_relu(nn.ConvTranspose2d(fc, widths[-1], kernel), widths[-1], bn_eps)
        self.unpool = nn.MaxUnpool2d(2, 2)
        self.decoder = nn.ModuleList()
        for number, (width, depth) in reversed(list(enumerate(blocks, start=1))):
            # The last deconvolution of a block narrows to the width of the block below, where pooling is undone next.
            below = widths[max(number - 2, 0)]
            block = nn.Sequential()
            for i in range(1, depth + 1):
                out = below if i == depth else width
                layer = nn.ConvTranspose2d(width, out, 3, padding=1)
                block.add_module(f"deconv{number}_{i}", conv_bn_relu(layer, out, bn_eps))
            self.decoder.append(block)
        self.score = nn.Conv2d(widths[0], classes, 1)  # the paper's table 2 prints pad 1 here: a misprint
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        """The release's: Gaussian of std 0.01 in the decoder; a backbone's weights replace those of the encoder."""
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
        for block, indices in zip(self.decoder, reversed(switches), strict=True):
            x = block(self.unpool(x, indices))
        return self.score(x)

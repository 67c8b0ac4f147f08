"""A 3×3 convolution with a quarter of the multiplications (Lavin, Gray, CVPR 2016), for inference on a CPU.

There the paper's network is as fast as its multiplications, and torch and oneDNN have no such convolution. Four by four
outputs come from a 6×6 tile of the input by 36 products a pair of channels instead of 144; what goes before and after,
B and A of the article, costs little where channels are many. The result is the same but for rounding.
"""

import torch
from torch import nn
from torch.nn import functional as F

STEP, TILE = 4, 6  # outputs of a tile along each side, and what it reads
WIDE = 2**15  # pairs of channels from which on it pays: measured, 128×256 does, 64×128 does not
ELEMENTS = 2**21  # of transformed input at a time: they stay in the cache
B = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
     (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1))  # fmt: skip
G = ((1/4, 0, 0), (-1/6, -1/6, -1/6), (-1/6, 1/6, -1/6), (1/24, 1/12, 1/6), (1/24, -1/12, 1/6), (0, 0, 1))  # fmt: skip
A = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def in_two_dimensions(matrix: tuple[tuple[float, ...], ...]) -> torch.Tensor:
    """The matrix that does to rows and columns of a flattened tile what `matrix` does to one of them."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one)


class Winograd(nn.Module):
    """(N, C, H, W) → (N, c, H, W) as `layer`, a convolution or transposed one for which `replaces` is true.

    Its weights take four times the memory of the layer's.
    """

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d):
        super().__init__()
        weight = layer.weight.detach()
        if isinstance(layer, nn.ConvTranspose2d):  # of stride 1: a convolution by the kernel turned around
            weight = weight.transpose(0, 1).flip(2, 3)
        kernels = in_two_dimensions(G) @ weight.double().permute(2, 3, 1, 0).flatten(2).flatten(0, 1)
        self.register_buffer("kernels", kernels.view(TILE**2, weight.shape[1], weight.shape[0]).to(weight.dtype))
        self.register_buffer("before", in_two_dimensions(B).to(weight.dtype))
        self.register_buffer("after", in_two_dimensions(A).to(weight.dtype))
        self.register_buffer("bias", layer.bias.detach())

    @staticmethod
    def replaces(layer: nn.Module) -> bool:
        """Whether `layer` is a 3×3 convolution of stride 1 that keeps the size, wide enough to gain by it."""
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) or layer.in_channels * layer.out_channels < WIDE:
            return False
        found = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups
        return found == ((3, 3), (1, 1), (1, 1), (1, 1), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        number, channels, height, width = x.shape
        rows, columns = -(-height // STEP), -(-width // STEP)
        result = x.new_empty(number, rows, STEP, columns, STEP, len(self.bias))
        at_once = max(ELEMENTS // (TILE**2 * rows * columns * channels), 1)
        border = 0, 0, 1, columns * STEP - width + 1, 1, rows * STEP - height + 1
        for some, out in zip(x.permute(0, 2, 3, 1).split(at_once), result.split(at_once), strict=True):
            tiles = F.pad(some, border).unfold(1, TILE, STEP).unfold(2, TILE, STEP)  # n, rows, columns, C, TILE, TILE
            tiles = self.before @ tiles.permute(4, 5, 0, 1, 2, 3).reshape(TILE**2, -1)
            products = torch.bmm(tiles.view(TILE**2, -1, channels), self.kernels).flatten(1)
            outputs = (self.after @ products).view(STEP, STEP, len(some), rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
            torch.add(outputs, self.bias, out=out)
        result = result.view(number, rows * STEP, columns * STEP, -1)[:, :height, :width]
        return result.contiguous().permute(0, 3, 1, 2)

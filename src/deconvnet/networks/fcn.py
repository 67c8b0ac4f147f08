"""FCN-8s (Long, Shelhamer, Darrell, CVPR 2015), the paper's baseline and the other half of its ensemble.

Imports torch alone, and `deconvnet` for the encoder. It keeps fc6 and fc7 as convolutions over the whole image, and
adds scores predicted from pool4 and pool3 while it upsamples ×2, ×2, ×8.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from deconvnet.networks.deconvnet import VGG16, Encoder


def bilinear(layer: nn.ConvTranspose2d) -> nn.ConvTranspose2d:
    """Sets a transposed convolution of kernel 2s and stride s to bilinear upsampling of each channel."""
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    ramp = 1 - (torch.arange(kernel) + 0.5 - stride).abs() / stride
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(layer.in_channels), range(layer.in_channels)] = ramp[:, None] * ramp[None, :]
    return layer


class FCN8s(nn.Module):
    """(N, 3, H, W) RGB in 0–255, any H and W → (N, classes, H, W) raw scores.

    With no arguments: VGG-16 without batch norm and dropout 0.5 behind fc6 and fc7, as its authors train it.
    `size` determines the fc6 kernel only (size / 32), so that a DeconvNet's encoder fits.

    fc6 needs a margin. `padding` "fc6" pads its input; the image is padded to whole cells of pool5 on the right and at
    the bottom. "image" pads the image with 100 px, which is what the authors' published weights expect.
    """

    def __init__(
        self,
        classes: int = 21,
        blocks: Sequence[tuple[int, int]] = VGG16,
        fc: int = 4096,
        size: int = 224,
        bn_eps: float | None = None,
        std: float = 1.0,
        dropout: float = 0.5,
        padding: str = "fc6",
    ):
        super().__init__()
        if padding == "image" and (size, len(blocks)) != (224, 5):
            raise ValueError(f"padding 'image' is for 5 blocks and size 224, not for {len(blocks)} and {size}")
        self.padding = padding
        self.stride = 2 ** len(blocks)
        self.kernel = size // self.stride
        self.encoder = Encoder(blocks, fc, self.kernel, bn_eps, std)
        self.dropout = nn.Dropout2d(dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        self.score_fc7 = nn.Conv2d(fc, classes, 1)
        self.score_pool4 = nn.Conv2d(blocks[-2][0], classes, 1)
        self.score_pool3 = nn.Conv2d(blocks[-3][0], classes, 1)
        for score in (self.score_fc7, self.score_pool4, self.score_pool3):
            nn.init.zeros_(score.weight)  # as in the FCN paper: scores start at 0
            nn.init.zeros_(score.bias)
        last = self.stride // 4  # pool3's stride: 8 for five poolings
        # An odd fc6 kernel keeps the cells of pool5; an even one gives the points between them, half a cell to the
        # left of cell 0 first. What is left off at each border brings both onto the grid of pool4.
        margins = (2 - self.kernel % 2, 1, last // 2) if padding == "fc6" else (0, 0, 0)
        self.up2_fc7, self.up2_pool4, self.up8 = (
            bilinear(nn.ConvTranspose2d(classes, classes, 2 * s, stride=s, padding=margin, bias=False))
            for s, margin in zip((2, 2, last), margins, strict=True)
        )
        self.up8.weight.requires_grad_(False)  # the last upsampling stays bilinear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._image_padded(x) if self.padding == "image" else self._fc6_padded(x)

    def _fc6_padded(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        x = F.pad(image, (0, -width % self.stride, 0, -height % self.stride))
        (*_, pool3, pool4, pool5), _ = self.encoder(x)
        x = self._score(F.pad(pool5, [self.kernel // 2] * 4))
        x = self.up2_fc7(x) + self.score_pool4(pool4)
        x = self.up8(self.up2_pool4(x) + self.score_pool3(pool3))
        return x if x.shape[-2:] == (height, width) else crop(x, 0, image)  # a slice of all is a copy in training

    def _image_padded(self, x: torch.Tensor) -> torch.Tensor:
        """The authors' deploy network: 100 px (one of them is conv1_1's own), pooling rounds up, and what is cropped
        follows from both: 5 cells of pool4, 9 of pool3, 31 px.
        """
        height, width = x.shape[-2:]
        x = F.pad(x - self.encoder.mean, [99] * 4) + self.encoder.mean  # the padding is 0 once the mean is off
        (*_, pool3, pool4, pool5), _ = self.encoder(x, round_up=True)
        x = self.up2_fc7(self._score(pool5))
        x = self.up2_pool4(x + crop(self.score_pool4(pool4), 5, x))
        x = self.up8(x + crop(self.score_pool3(pool3), 9, x))
        return x[..., 31 : 31 + height, 31 : 31 + width]

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dropout(self.encoder.fc6(x))
        return self.score_fc7(self.dropout(self.encoder.fc7(x)))


def crop(x: torch.Tensor, offset: int, like: torch.Tensor) -> torch.Tensor:
    return x[..., offset : offset + like.shape[-2], offset : offset + like.shape[-1]]

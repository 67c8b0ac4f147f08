"""From boxes to tensors and back: crops for a network, and scores resized and pasted where they belong.

On a CPU `boxes.crop` and OpenCV make crops one by one. On a GPU a batch is gathered at once from all images, which lie
there in one flat uint8 tensor (image_cache.Images), without waiting for the host: `CropBatch`. Its images agree with
the plain path to one grey level, its labels fully.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from deconvnet.images import boxes


@dataclass(frozen=True)
class CropBatch:
    """A batch of crops: int64 tensors on the device of the images, one row per example.

    Each box (x1, y1, x2, y2) of an image of `shape` (H, W) is resized to `resized` × `resized`. Of that the part of
    side `size` at `corner` (y, x) is taken, and mirrored if `flip`. `start` is the index of the image's first pixel.
    """

    start: torch.Tensor
    shape: torch.Tensor
    boxes: torch.Tensor
    corner: torch.Tensor
    flip: torch.Tensor
    resized: int
    size: int

    def axes(self) -> tuple[tuple[torch.Tensor, ...], ...]:
        """For rows, for columns: positions in the resized box (N, size), the side of the box, its first pixel."""
        forward = torch.arange(self.size, device=self.boxes.device)
        across = torch.where(self.flip[:, None], self.size - 1 - forward, forward)
        x1, y1, x2, y2 = self.boxes.T[..., None]
        return (forward + self.corner[:, :1], y2 - y1, y1), (across + self.corner[:, 1:], x2 - x1, x1)

    def gather(self, flat: torch.Tensor, channels: int, y: torch.Tensor, x: torch.Tensor, outside: int) -> torch.Tensor:
        """The pixels (N, size, size, channels) at rows y and columns x (N, size) of the images; `outside` beyond."""
        height, width = (side[:, None] for side in self.shape.T)
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
        at = (y * width)[:, :, None] + x[:, None, :]
        at = self.start[:, None, None] + channels * at.where(inside, 0)
        at = at[..., None] + torch.arange(channels, device=flat.device)
        return torch.where(inside[..., None], flat[at], outside)

    def pictures(self, flat: torch.Tensor) -> torch.Tensor:
        """float (N, 3, size, size) in 0–255, whole numbers: bilinear as OpenCV's, 0 outside of the image."""
        (y, down), (x, right) = (self._linear(*axis) for axis in self.axes())
        down, right = down[:, :, None, None], right[:, None, :, None]
        above, below = (torch.lerp(*(self.gather(flat, 3, row, column, 0).float() for column in x), right) for row in y)
        return torch.lerp(above, below, down).round().permute(0, 3, 1, 2)

    def _linear(self, step: torch.Tensor, side: torch.Tensor, begin: torch.Tensor):
        """The two pixels around each position, and its distance from the first."""
        at = ((step + 0.5) * side / self.resized - 0.5).clamp(min=0).minimum(side - 1.0)
        first = at.floor().long()
        return (first + begin, (first + 1).minimum(side - 1) + begin), at - first

    def labels(self, flat: torch.Tensor, outside: int) -> torch.Tensor:
        """uint8 (N, size, size): the nearest pixel, in the fixed-point arithmetic of OpenCV's INTER_NEAREST_EXACT."""
        y, x = (self._nearest(*axis) for axis in self.axes())
        return self.gather(flat, 1, y, x, outside)[..., 0]

    def _nearest(self, step: torch.Tensor, side: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:
        stride = (2**16 * side + self.resized // 2) // self.resized
        return begin + ((stride * step + stride // 2 - side % 2) >> 16)


def crop_boxes(
    image: np.ndarray, regions: np.ndarray, side: int, antialias: bool = False, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Crops of (N, 4) boxes of an RGB image, each resized: float (N, 3, side, side) in 0–255, on the device.

    `antialias` smooths what shrinks, as MATLAB's imresize does in the release's inference [unverified]; its training
    does not. Without it a GPU makes all crops at once.
    """
    if torch.device(device).type != "cpu" and not antialias:
        return crop_boxes_on_device(image, regions, side, device)
    crops = (boxes.crop(image, box, 0) for box in regions)  # one by one: each may be a copy of a huge image
    if not antialias:
        return to_tensor(np.stack([boxes.resize_image(crop, side) for crop in crops])).to(device)
    options = {"size": (side, side), "mode": "bilinear", "align_corners": False, "antialias": True}
    return torch.cat([F.interpolate(to_tensor(crop[None]), **options) for crop in crops]).to(device)


def crop_boxes_on_device(image: np.ndarray, regions: np.ndarray, side: int, device: torch.device | str) -> torch.Tensor:
    """`crop_boxes` at once on a device; equal to one grey level."""
    rows = np.hstack([regions, np.broadcast_to(image.shape[:2], (len(regions), 2))])
    flat, rows = (to_device(part, device) for part in (image.ravel(), rows))
    regions, shape, zeros = rows[:, :4], rows[:, 4:], torch.zeros_like(rows[:, :2])
    return CropBatch(zeros[:, 0], shape, regions, zeros, zeros[:, 0] > 0, side, side).pictures(flat)


def to_device(array: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """Copies to a GPU from pinned memory, asynchronously: from other memory the host would wait for the GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return (tensor.pin_memory() if torch.device(device).type == "cuda" else tensor).to(device, non_blocking=True)


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) → float (N, 3, H, W)"""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def blank_canvas(classes: int, shape: tuple[int, int], device: torch.device) -> torch.Tensor:
    """(classes, H, W) zeros, channels last in memory: pasting is twice as fast on a CPU."""
    canvas = torch.empty(1, classes, *shape, device=device, memory_format=torch.channels_last)
    return canvas.zero_()[0]


def resize_to_box(
    scores: torch.Tensor, box: np.ndarray, shape: tuple[int, int], antialias: bool = False
) -> tuple[slice, slice, torch.Tensor]:
    """Resizes the (C, s, s) scores of a proposal to its box: the rows and columns of the image that it covers, and the
    float32 scores there.
    """
    x1, y1, x2, y2 = (int(v) for v in box)
    options = {"size": (y2 - y1, x2 - x1), "mode": "bilinear", "align_corners": False, "antialias": antialias}
    scores = F.interpolate(scores[None].float(), **options)[0]
    inside = [(max(a, 0), min(b, side)) for a, b, side in zip((y1, x1), (y2, x2), shape, strict=True)]
    rows, columns = (slice(first, max(first, last)) for first, last in inside)  # empty if the box is elsewhere
    return rows, columns, scores[:, rows.start - y1 : rows.stop - y1, columns.start - x1 : columns.stop - x1]


def paste_maximum(canvas: torch.Tensor, scores: torch.Tensor, box: np.ndarray, antialias: bool = False) -> None:
    """Raises (C, H, W) `canvas` in place to a proposal's (C, s, s) scores, resized to its box (section 5.1)."""
    rows, columns, scores = resize_to_box(scores, box, canvas.shape[-2:], antialias)
    part = canvas[:, rows, columns]
    torch.maximum(part, scores, out=part)

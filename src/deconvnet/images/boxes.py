"""Boxes: overlap, extension, and cropping by them.

A box is (x1, y1, x2, y2) in pixels, integers, half-open: x2 - x1 is its width.

Boxes may leave the image. Outside of it the picture is 0 and the label is void, as in the release.
"""

import cv2
import numpy as np

BOX = ["x1", "y1", "x2", "y2"]


def box_iou(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(N, M) intersection over union of (N, 4) and (M, 4) boxes."""
    first, second = (np.asarray(b, np.float32).reshape(-1, 4) for b in (boxes, objects))
    first, second = first[:, None], second[None]  # torchvision's box_iou does the same, and takes seconds to import
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    common = sides.clip(min=0).prod(axis=-1)
    areas = [(b[..., 2:] - b[..., :2]).prod(axis=-1) for b in (first, second)]
    return common / (areas[0] + areas[1] - common)


def extend(boxes: np.ndarray, factor: float, square: bool) -> np.ndarray:
    """(N, 4) boxes grown around their centres; `square`: to `factor` × the longer side, as the release's boxes are."""
    boxes = np.asarray(boxes, dtype=float).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    if square:
        sides = np.repeat(sides.max(axis=1, keepdims=True), 2, axis=1)
    sides = np.maximum(np.rint(factor * sides), 1)
    corner = np.rint((boxes[:, :2] + boxes[:, 2:] - sides) / 2)
    return np.hstack([corner, corner + sides]).astype(int)


def crop(picture: np.ndarray, box: np.ndarray, outside: int) -> np.ndarray:
    """The (h, w[, C]) part of `picture` inside `box`, filled with `outside` where the box leaves the picture."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = (int(v) for v in box)
    inside = picture[max(y1, 0) : max(min(y2, height), 0), max(x1, 0) : max(min(x2, width), 0)]
    if inside.shape[:2] == (y2 - y1, x2 - x1):
        return inside
    cut = np.full((y2 - y1, x2 - x1, *picture.shape[2:]), outside, picture.dtype)
    top, left = max(-y1, 0), max(-x1, 0)
    cut[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return cut


def resize_image(image: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)


def resize_labels(labels: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)

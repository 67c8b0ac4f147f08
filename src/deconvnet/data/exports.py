"""What annotation tools write beside VOC's own layout, read as it is: photographs as PNG or with upper-case endings,
masks of colours, labelme's folders and arrays, and masks without instances.

Colours are taken exactly, through the class list: one that no class has is an error, never the nearest class.
"""

import io
import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from deconvnet.data.classes import BACKGROUND, MAP, VOID, Classes
from deconvnet.data.reading import FileError, read_bytes, read_mask

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
MASK_FOLDERS = ("", "PNG", "Npy")  # after SegmentationClass or SegmentationObject; the first that has the file
MASK_SUFFIXES = (".png", ".PNG", ".npy")
MAX_NAMED = 50  # unknown colours in one message: a blurred mask has thousands
INDEX_DTYPES = "iub"


def image_file(folder: Path, name: str) -> Path:
    """The file of a photograph; <name>.jpg where none of the endings is there."""
    return _first([folder / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES])


def mask_file(folder: Path, name: str) -> Path:
    """The file of a mask in SegmentationClass or SegmentationObject or beside it; <name>.png if there is none."""
    folders = [folder.with_name(folder.name + ending) for ending in MASK_FOLDERS]
    return _first([one / f"{name}{suffix}" for suffix in MASK_SUFFIXES[:2] for one in folders[:2]]
                  + [one / f"{name}.npy" for one in folders])  # fmt: skip


def _first(paths: list[Path]) -> Path:
    return next((path for path in paths if os.path.lexists(path)), paths[0])


def mask_folders(folder: Path) -> list[Path]:
    """Which folders of masks there are: SegmentationClass, SegmentationClassPNG, SegmentationClassNpy."""
    folders = [folder.with_name(folder.name + ending) for ending in MASK_FOLDERS]
    return [one for one in folders if os.path.lexists(one)]


def is_index_png(path: Path) -> bool:
    """Whether a mask that can be read is stored as every stage reads it."""
    if path.suffix != ".png" or not path.is_file():
        return False
    with Image.open(path) as image:  # reads the header only
        return image.mode in ("P", "L")


def read(path: Path, missing: str) -> np.ndarray:
    """A mask as it is stored: indices, uint8 (H, W), or colours, uint8 (H, W, 3). Raises FileError."""
    if path.suffix != ".npy":
        return read_mask(path, missing)
    try:
        indices = np.load(io.BytesIO(read_bytes(path, missing)), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FileError(path, f"is not a complete array of NumPy ({error})", "Write it again") from None
    if (
        indices.ndim != 2
        or indices.dtype.kind not in INDEX_DTYPES
        or indices.min(initial=0) < -1
        or indices.max() > VOID
    ):
        problem = f"is an array of {indices.dtype}, {indices.shape}, not of (height, width) labels from -1 to {VOID}"
        raise FileError(path, problem, "Store the label of each pixel, -1 or 255 for void")
    return np.where(indices == -1, VOID, indices).astype(np.uint8)


def labels_of(path: Path, mask: np.ndarray, own: Classes) -> np.ndarray:
    """The labels, uint8 (H, W), of a mask as `read` gives it. Raises FileError for a colour or index that no class
    has, with all of them.
    """
    if mask.ndim == 3:
        return _labels_of_colours(path, mask, own)
    if own.moved:
        problem = f"has indices, and the class list does not begin with {BACKGROUND[0]}: which class is 1 is not said"
        raise FileError(path, problem, f"Put {BACKGROUND[0]} first in the list, or export masks of colours")
    wrong = mask[(mask >= len(own)) & (mask != VOID)]
    if wrong.size:
        values = ", ".join(map(str, np.unique(wrong)[:5]))
        raise FileError(
            path,
            f"has class values outside 0-{len(own) - 1} and {VOID}: {values} ({wrong.size} pixels)",
            f"Write the label of each pixel's class, and {VOID} for void, or complete the class list (labelmap.txt)",
        )
    return mask


def _labels_of_colours(path: Path, mask: np.ndarray, own: Classes) -> np.ndarray:
    codes, labels, pixels = _colours(mask)
    known = {colour: label for label, colour in [*enumerate(own.colours), (VOID, own.void)]}
    found = [known.get(_colour(code), -1) for code in codes.tolist()]
    if -1 in found:
        unknown = [
            (int(n), _colour(code)) for code, label, n in zip(codes.tolist(), found, pixels, strict=True) if label < 0
        ]
        unknown.sort(reverse=True)
        shown = "; ".join(f"{','.join(map(str, colour))} ({n} pixels)" for n, colour in unknown[:MAX_NAMED])
        rest = f"; and {len(unknown) - MAX_NAMED} more" if len(unknown) > MAX_NAMED else ""
        advice = "Add them to the class list, or export without smoothing: a colour is never taken for the nearest"
        raise FileError(path, f"has {len(unknown)} colour(s) that no class has: {shown}{rest}", advice)
    return np.array(found, np.uint8)[labels]


def instances_of(path: Path, mask: np.ndarray) -> np.ndarray:
    """The instances, uint8 (H, W), of a mask as `read` gives it: indices as they are, colours numbered one by one in
    the order of VOC's colour map. Black is the background, VOC's colour of void is void. Raises FileError for more
    than 254.
    """
    if mask.ndim == 2:
        return mask
    codes, place, _ = _colours(mask)
    fixed = {MAP[0]: 0, MAP[VOID]: VOID}
    order = [code for code in codes.tolist() if _colour(code) not in fixed]
    order.sort(key=lambda code: MAP.index(_colour(code)) if _colour(code) in MAP else VOID)
    require_numbers(path, len(order))
    numbers = dict(zip(order, range(1, VOID), strict=False))
    return np.array([numbers.get(code, fixed.get(_colour(code))) for code in codes.tolist()], np.uint8)[place]


def components(path: Path, labels: np.ndarray) -> np.ndarray:
    """Connected components of each class (8 neighbours) as instances, uint8 (H, W); void stays void. `path` is the
    class mask's. Raises FileError for more than 254.
    """
    found, number = np.where(labels == VOID, VOID, 0), 0
    for label in np.unique(labels[(labels > 0) & (labels < VOID)]).tolist():
        count, parts = cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=8)
        found[parts > 0] = parts[parts > 0] + number
        number += count - 1
    require_numbers(path, number)
    return found.astype(np.uint8)


def require_numbers(path: Path, number: int) -> None:
    if number >= VOID:
        problem = f"has {number} objects, more than the {VOID - 1} that a mask of 8 bits can number"
        raise FileError(path, problem, "Remove specks, merge objects, or take its id out of the lists")


def _colours(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of (H, W, 3) uint8: its colours as numbers, which of them each pixel has (H, W), and the pixels of each."""
    codes = mask.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    found, place, pixels = np.unique(codes, return_inverse=True, return_counts=True)
    return found, place.reshape(codes.shape), pixels


def _colour(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255

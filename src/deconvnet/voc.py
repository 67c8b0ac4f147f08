"""The PASCAL VOC segmentation layout: one reader for every data source.

    JPEGImages/<id>.jpg                 photographs
    SegmentationClass/<id>.png          class of each pixel: 0 background, 1-20 objects, 255 void
    SegmentationObject/<id>.png         instance of each pixel: 0 background, 1-254 instances, 255 void
    ImageSets/Segmentation/<split>.txt  one id a line

Masks are palette (or greyscale) PNGs: the stored index is the label, the colour is only for the eye.

    python -m deconvnet.voc check FOLDER
"""

import argparse
import itertools
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from deconvnet.errors import UserError

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOID = 255
SPLITS = ("train", "dev", "val")

IMAGES = "JPEGImages"
LABELS = "SegmentationClass"
INSTANCES = "SegmentationObject"
LISTS = "ImageSets/Segmentation"

OBJECT_COLUMNS = ["image", "instance", "label", "x1", "y1", "x2", "y2", "pixels", "width", "height"]


def palette() -> np.ndarray:
    """VOC's colour map, (256, 3) uint8: the bits of the label are dealt to R, G, B in turn, highest bit first."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def colorize(labels) -> np.ndarray:
    """Integer labels (H, W) in 0-255 to VOC's colours (H, W, 3) uint8."""
    return palette()[labels]


def save_mask(path, labels) -> None:
    """Write integer labels (H, W) in 0-255 as a palette PNG with VOC's colour map."""
    image = Image.fromarray(np.asarray(labels).astype(np.uint8))
    image.putpalette(palette().tobytes())
    image.save(path, format="PNG")


def list_path(folder, split) -> Path:
    """Where a split's list of ids lies."""
    return Path(folder, LISTS, f"{split}.txt")


def image_path(folder, name) -> Path:
    return Path(folder, IMAGES, f"{name}.jpg")


def labels_path(folder, name) -> Path:
    return Path(folder, LABELS, f"{name}.png")


def instances_path(folder, name) -> Path:
    return Path(folder, INSTANCES, f"{name}.png")


def read_list(folder, split) -> list[str]:
    """The ids of a split, in the list's order; blank lines, CRLF and a byte-order mark are tolerated.

    Raises UserError if the list is missing or is not text.
    """
    path = list_path(folder, split)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Write the ids of the {split} images there, one a line.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text. Save it as plain text with one id a line.") from None
    return [line.strip() for line in lines if line.strip()]


def read_image(folder, name) -> np.ndarray:
    """The photograph as RGB, (H, W, 3) uint8. Raises UserError if it is missing, truncated or not a JPEG."""
    return np.array(_decode(image_path(folder, name), "JPEG").convert("RGB"))


def read_labels(folder, name) -> np.ndarray:
    """The class mask, (H, W) uint8 with values 0-20 and 255 (void).

    Raises UserError if it is missing, truncated, not a palette or greyscale PNG, or has another value.
    """
    path = labels_path(folder, name)
    labels = _read_mask(path)
    wrong = labels[(labels >= len(CLASSES)) & (labels != VOID)]
    if wrong.size:
        values = ", ".join(map(str, np.unique(wrong)[:5]))
        raise UserError(
            f"{path} has class values outside 0-{len(CLASSES) - 1} and {VOID}: {values} ({wrong.size} pixels). "
            f"Write the VOC class index of each pixel, and {VOID} for void."
        )
    return labels


def read_instances(folder, name) -> np.ndarray:
    """The instance mask, (H, W) uint8: 0 background, 1-254 instances, 255 void.

    Raises UserError if it is missing, truncated or not a palette or greyscale PNG.
    """
    return _read_mask(instances_path(folder, name))


def objects(folder, names) -> pd.DataFrame:
    """One row per instance of the images `names`, in their order, for a folder that check() finds sound.

    image: id; instance: its value in the instance mask; label: the class 1-20 that most of its pixels have (void and
    background do not vote); x1, y1, x2, y2: tight box in pixels, half-open; pixels: its area; width, height: of the
    image. Raises UserError for a mask that cannot be read and for an instance without a class.
    """
    rows = []
    for name in tqdm(names, desc="objects", unit="image"):
        labels, instances = read_labels(folder, name), read_instances(folder, name)
        height, width = labels.shape
        for instance, (label, pixels) in _instance_classes(labels, instances).items():
            if label is None:
                raise UserError(_without_class(folder, name, instance))
            mask = instances == instance
            columns, lines = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
            box = columns[0], lines[0], columns[-1] + 1, lines[-1] + 1
            rows.append((name, instance, label, *map(int, box), pixels, width, height))
    return pd.DataFrame(rows, columns=OBJECT_COLUMNS)


def check(folder, splits) -> list[str]:
    """Every problem of the folder's `splits`, one string each, naming the file and what to do; empty if it is sound.

    Decodes each listed image and mask in full. Without the four sub-folders nothing else is looked at.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return [f"{folder} is not a folder. Name the folder that holds {IMAGES} and {LISTS}."]
    missing = [sub for sub in (IMAGES, LABELS, INSTANCES, LISTS) if not (folder / sub).is_dir()]
    if missing:
        hint = "Name a folder in VOC layout (of the official archive: VOCdevkit/VOC2012), or add the sub-folder."
        return [f"{folder / sub} is missing. {hint}" for sub in missing]

    problems, names = _check_lists(folder, splits)
    for name in tqdm(names, desc="check", unit="image"):
        problems += _check_image(folder, name)
    return problems


def require(folder, splits) -> None:
    """Raise UserError with the number of problems and the first ten, unless check() finds the folder sound."""
    problems = check(folder, splits)
    if problems:
        shown = "".join(f"\n- {problem}" for problem in problems[:10])
        rest = f"\n- and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(
            f"{folder} cannot be used: {len(problems)} problem(s) found. To see all of them: "
            f"python -m deconvnet.voc check {folder}{shown}{rest}"
        )


def _decode(path: Path, kind: str) -> Image.Image:
    try:
        with Image.open(path, formats=[kind]) as image:
            image.load()  # open() reads the header only; this finds truncated files
            return image
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Put it there, or take its id out of the lists in {LISTS}.") from None
    except (OSError, SyntaxError, ValueError) as error:  # PIL reports broken files with any of the three
        raise UserError(
            f"{path} is not a complete {kind} file ({error}). Fetch it again, or convert it to {kind}."
        ) from error


def _read_mask(path: Path) -> np.ndarray:
    image = _decode(path, "PNG")
    if image.mode not in ("P", "L"):
        raise UserError(
            f"{path} is a PNG of mode {image.mode}, not a palette or 8-bit greyscale PNG. "
            "Store the label itself as the pixel's value, not its colour."
        )
    return np.array(image)  # a copy, since torch wants writable arrays


def _instance_classes(labels: np.ndarray, instances: np.ndarray) -> dict[int, tuple[int | None, int]]:
    """Instance -> (class with the most pixels or None, number of pixels), from two uint8 masks (H, W)."""
    pairs = instances.astype(np.intp) * 256 + labels
    counts = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)  # [instance, class]
    votes, pixels = counts[:, 1 : len(CLASSES)], counts.sum(axis=1)
    return {
        instance: (int(votes[instance].argmax()) + 1 if votes[instance].any() else None, int(pixels[instance]))
        for instance in range(1, VOID)
        if pixels[instance]
    }


def _without_class(folder, name, instance: int) -> str:
    return (
        f"{instances_path(folder, name)}: instance {instance} has no pixel with a class in {LABELS}/{name}.png. "
        "Give its pixels a class there, or remove the instance."
    )


def _check_lists(folder: Path, splits) -> tuple[list[str], list[str]]:
    """The lists' problems, and the ids (each once) whose files can be looked at."""
    problems, lists = [], {}
    for split in splits:
        path = list_path(folder, split)
        try:
            names = read_list(folder, split)
        except UserError as error:
            problems.append(str(error))
            continue
        if not names:
            problems.append(f"{path} lists no image. Write at least one id into it.")
        for name, times in Counter(names).items():
            if times > 1:
                problems.append(f"{path} lists {name} {times} times. Keep one of these lines.")
            if not _is_plain(name):
                problems.append(
                    f"{path} has the id {name!r}, which is a path. "
                    "Write the plain file name without extension, for instance 2007_000032."
                )
        lists[split] = [name for name in dict.fromkeys(names) if _is_plain(name)]

    for first, second in itertools.combinations(lists, 2):
        shared = sorted(set(lists[first]) & set(lists[second]))
        if shared:
            problems.append(
                f"{list_path(folder, first)} and {second}.txt share {len(shared)} id(s): {', '.join(shared[:5])}"
                f"{', ...' if len(shared) > 5 else ''}. Keep each id in one of them."
            )
    return problems, list(dict.fromkeys(itertools.chain.from_iterable(lists.values())))


def _is_plain(name: str) -> bool:
    return name not in (".", "..") and not re.search(r"[/\\:]", name)


def _check_image(folder: Path, name: str) -> list[str]:
    problems, arrays = [], []
    for read in (read_image, read_labels, read_instances):
        try:
            arrays.append(read(folder, name))
        except UserError as error:
            problems.append(str(error))
            arrays.append(None)
    image, labels, instances = arrays
    for path, mask in ((labels_path(folder, name), labels), (instances_path(folder, name), instances)):
        if image is not None and mask is not None and mask.shape != image.shape[:2]:
            problems.append(
                f"{path} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {image.shape[1]} x {image.shape[0]}. "
                "Make the mask as large as the image."
            )
    if labels is not None and instances is not None and labels.shape == instances.shape:
        classes = _instance_classes(labels, instances)
        problems += [
            _without_class(folder, name, instance) for instance, (label, _) in classes.items() if label is None
        ]
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deconvnet.voc", description="The VOC segmentation layout.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("check", help="print every problem of a folder in VOC layout")
    command.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    # dev.txt is optional: import holds a part of train out where it is missing
    splits = [split for split in SPLITS if split != "dev" or list_path(folder, "dev").exists()]
    problems = check(folder, splits)
    print("\n".join(problems) if problems else f"{folder} is sound.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

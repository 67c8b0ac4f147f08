"""The PASCAL VOC segmentation layout: one reader for every data source.

    JPEGImages/<id>.jpg                 photographs
    SegmentationClass/<id>.png          class of each pixel: 0 background, 1-20 objects, 255 void
    SegmentationObject/<id>.png         instance of each pixel: 0 background, 1-254 instances, 255 void
    ImageSets/Segmentation/<split>.txt  one id a line

Masks are palette (or greyscale) PNGs: the stored index is the label, the colour is only for the eye.

    python -m deconvnet.voc check FOLDER [--json]      everything that is wrong with a folder: see voccheck.py
"""

import io
import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from deconvnet.errors import UserError
from deconvnet.files import write_whole

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

MISSING = f"Put it there, or take its id out of the lists in {LISTS}"

OBJECT_COLUMNS = ["image", "instance", "label", "x1", "y1", "x2", "y2", "pixels", "width", "height"]


class FileError(UserError):
    """A file that cannot be used: which, what is wrong with it (a predicate), and what to do (both without a stop)."""

    def __init__(self, file, problem: str, advice: str):
        super().__init__(file, problem, advice)  # all three: what comes back from a worker process is made of them
        self.file, self.problem, self.advice = file, problem, advice

    def __str__(self) -> str:
        return f"{self.file} {self.problem}. {self.advice}."


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
    image, content = Image.fromarray(np.asarray(labels).astype(np.uint8)), io.BytesIO()
    image.putpalette(palette().tobytes())
    image.save(content, format="PNG")
    write_whole(Path(path), content.getvalue(), durable=False)


def list_path(folder, split) -> Path:
    """Where a split's list of ids lies."""
    return Path(folder, LISTS, f"{split}.txt")


def image_path(folder, name) -> Path:
    return _path(folder, IMAGES, name, ".jpg")


def labels_path(folder, name) -> Path:
    return _path(folder, LABELS, name, ".png")


def instances_path(folder, name) -> Path:
    return _path(folder, INSTANCES, name, ".png")


def _path(folder, sub: str, name: str, suffix: str) -> Path:
    """Whatever its list was read with, an id leads to no other folder. Raises UserError."""
    if reason := wrong_id(name):
        raise UserError(f"No file in {Path(folder, sub)} can have the id '{short(name)}', which {reason}.")
    return Path(folder, sub, f"{name}{suffix}")


def wrong_id(name: str) -> str | None:
    """Why no photograph can have this id."""
    reasons = {
        "is an absolute path": re.match(r"[/\\]|[A-Za-z]:", name),
        "leads to another folder": {".", ".."} & set(re.split(r"[/\\]", name)),
        "is a path": re.search(r"[/\\:]", name),
        "has characters that cannot be seen": not name.isprintable(),
        "has an extension": name.lower().endswith((".jpg", ".jpeg", ".png")),
        "is too long for the name of a file": len(name.encode(errors="replace")) > 240,
    }
    return next((reason for reason, there in reasons.items() if there), None)


def id_error(path: Path, name: str) -> FileError | None:
    """What is to be said of an id in the list at `path`."""
    if reason := wrong_id(name):
        advice = "Write the plain file name without extension, for instance 2007_000032"
        return FileError(path, f"has the id '{short(name)}', which {reason}", advice)
    return None


def visible(text) -> str:
    """What every terminal can show: names of files may hold control characters, or bytes that are no text."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def short(name: str) -> str:
    return visible(name if len(name) <= 60 else f"{name[:60]}...")


def read_list(folder, split) -> list[str]:
    """The ids of a split, in the list's order. Raises FileError as `read_ids` does."""
    return read_ids(list_path(folder, split))


def read_ids(path: Path) -> list[str]:
    """The ids in a list. Raises FileError as `read_lines` does, and for an id that no photograph can have."""
    names = read_lines(path)
    for name in names:
        if failed := id_error(path, name):
            raise failed
    return names


def read_lines(path: Path) -> list[str]:
    """What a list names, right or wrong; blank lines, CRLF and a byte-order mark are tolerated.

    Raises FileError if the list is missing, cannot be read or is not text.
    """
    content = read_bytes(path, f"Write the ids of the {path.stem} images there, one a line")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise FileError(path, "is not UTF-8 text", "Save it as plain text with one id a line") from None
    return [line.strip() for line in lines if line.strip()]


def read_image(folder, name) -> np.ndarray:
    """The photograph as RGB, (H, W, 3) uint8. Raises FileError if it is missing, truncated or not a JPEG."""
    return np.array(decode(image_path(folder, name), "JPEG").convert("RGB"))


def read_labels(folder, name) -> np.ndarray:
    """The class mask, (H, W) uint8 with values 0-20 and 255 (void).

    Raises FileError if it is missing, truncated, not a palette or greyscale PNG, or has another value.
    """
    path = labels_path(folder, name)
    labels = _read_mask(path)
    wrong = labels[(labels >= len(CLASSES)) & (labels != VOID)]
    if wrong.size:
        values = ", ".join(map(str, np.unique(wrong)[:5]))
        raise FileError(
            path,
            f"has class values outside 0-{len(CLASSES) - 1} and {VOID}: {values} ({wrong.size} pixels)",
            f"Write the VOC class index of each pixel, and {VOID} for void",
        )
    return labels


def read_instances(folder, name) -> np.ndarray:
    """The instance mask, (H, W) uint8: 0 background, 1-254 instances, 255 void.

    Raises FileError if it is missing, truncated or not a palette or greyscale PNG.
    """
    return _read_mask(instances_path(folder, name))


def count_pixels(labels: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Pixels of each instance and class, (256, 256) int64, from two uint8 masks (H, W)."""
    pairs = instances.astype(np.intp) * 256 + labels
    return np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)


def without_class(folder, name, instance: int) -> FileError:
    return FileError(
        instances_path(folder, name),
        f"has instance {instance} without a class: no pixel of it has one in {LABELS}/{name}.png",
        "Give its pixels a class there, or remove the instance",
    )


def objects(folder, names) -> pd.DataFrame:
    """One row per instance of the images `names`, in their order, for a folder that check() finds sound.

    image: id; instance: its value in the instance mask; label: the class 1-20 that most of its pixels have (void and
    background do not vote); x1, y1, x2, y2: tight box in pixels, half-open; pixels: its area; width, height: of the
    image. Raises FileError for a mask that cannot be read and for an instance without a class.
    """
    rows = []
    for name in tqdm(names, desc="objects", unit="image"):
        labels, instances = read_labels(folder, name), read_instances(folder, name)
        height, width = labels.shape
        counts = count_pixels(labels, instances)
        pixels = counts.sum(axis=1)
        for instance in map(int, np.flatnonzero(pixels[1:VOID]) + 1):
            votes = counts[instance, 1 : len(CLASSES)]
            if not votes.any():
                raise without_class(folder, name, instance)
            mask = instances == instance
            columns, lines = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
            box = columns[0], lines[0], columns[-1] + 1, lines[-1] + 1
            label = int(votes.argmax()) + 1
            rows.append((name, instance, label, *map(int, box), int(pixels[instance]), width, height))
    return pd.DataFrame(rows, columns=OBJECT_COLUMNS)


def check(folder, splits) -> list[str]:
    """Every error of the folder's `splits`, one string each, naming the file and what to do; empty if it is sound.

    voccheck.check() has the same as records, and notes beside them.
    """
    from deconvnet import voccheck  # it needs this module

    return [str(finding) for finding in voccheck.check(folder, splits) if finding.severity == "error"]


def require(folder, splits) -> list:
    """The notes of voccheck.check(), or UserError with the number of errors and the first ten."""
    from deconvnet import voccheck  # it needs this module

    found = voccheck.check(folder, splits)
    problems = [str(finding) for finding in found if finding.severity == "error"]
    if problems:
        shown = "".join(f"\n- {problem}" for problem in problems[:10])
        rest = f"\n- and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(
            f"{folder} cannot be used: {len(problems)} problem(s) found. To see all of them: "
            f"python -m deconvnet.voc check {folder}{shown}{rest}"
        )
    return found


def read_bytes(path: Path, missing: str) -> bytes:
    """What the file holds. Raises FileError if it cannot be read, with the advice `missing` if it is not there."""
    if os.path.lexists(path) and not os.path.isfile(path):  # os.path, since Path raises for a name that is too long
        if os.path.islink(path):
            raise FileError(path, "is a link to a file that does not exist", missing)
        raise FileError(path, "is not a file", "Put the file itself in its place")  # reading a pipe would never end
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileError(path, "is missing", missing) from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise FileError(path, f"cannot be read ({reason})", "Put it right, or take it out of the lists") from None


def decode(path: Path, kind: str) -> Image.Image:
    """The picture of a JPEG or PNG file, with all its pixels. Raises FileError if the file does not give it."""
    content = read_bytes(path, MISSING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata, which nothing here reads ...
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # ... but not of memory
            image = Image.open(io.BytesIO(content), formats=[kind])
            image.load()  # open() reads the header only; this finds truncated files
            return image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
        raise FileError(path, f"has more than {limit}", "Scale the picture and its masks down") from None
    except Exception as error:  # for a broken file PIL raises a dozen kinds, zlib's and struct's among them
        # the message of UnidentifiedImageError ends in an address in memory
        reason = "it begins otherwise" if isinstance(error, UnidentifiedImageError) else error
        advice = f"Fetch it again, or convert it to {kind}"
        raise FileError(path, f"is not a complete {kind} file ({reason})", advice) from error


def _read_mask(path: Path) -> np.ndarray:
    image = decode(path, "PNG")
    if image.mode not in ("P", "L"):
        raise FileError(
            path,
            f"is a PNG of mode {image.mode}, not a palette or 8-bit greyscale PNG",
            "Store the label itself as the pixel's value, not its colour",
        )
    return np.array(image)  # a copy, since torch wants writable arrays


if __name__ == "__main__":
    from deconvnet import voccheck

    sys.exit(voccheck.main())

"""The PASCAL VOC segmentation layout: one reader for every data source.

    JPEGImages/<id>.jpg                 photographs
    SegmentationClass/<id>.png          label of each pixel: 0 background, 1-254 classes, 255 void
    SegmentationObject/<id>.png         instance of each pixel: 0 background, 1-254 instances, 255 void
    ImageSets/Segmentation/<split>.txt  one id a line

Masks are palette (or greyscale) PNGs: the stored index is the label, the colour is only for the eye.

    python -m deconvnet.data.validate FOLDER [--json]      everything that is wrong with a folder: see validate.py
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from deconvnet.config.errors import UserError
from deconvnet.data import classes, exports
from deconvnet.data.classes import VOID
from deconvnet.data.reading import FileError, decode, read_ids, short, wrong_id
from deconvnet.utils.files import write_atomic

SPLITS = ("train", "dev", "val")
SIZES = ("small", "medium", "large")
IMAGES = "JPEGImages"
LABELS = "SegmentationClass"
INSTANCES = "SegmentationObject"
LISTS = "ImageSets/Segmentation"
COMPONENTS = "components.txt"  # in an imported folder whose objects are connected components
COMPONENTS_NOTE = (
    f"There is no {INSTANCES}: the connected components of each class count as objects, so that objects of a "
    "class that touch are one, and an object in two parts is two."
)
MISSING = f"Put it there, or take its id out of the lists in {LISTS}"
OBJECT_COLUMNS = ["image", "instance", "label", "x1", "y1", "x2", "y2", "pixels", "width", "height"]


def colorize(labels) -> np.ndarray:
    """Integer labels (H, W) in 0-255 to the colours of this run's classes, (H, W, 3) uint8."""
    return classes.current().palette[labels]


def save_mask(path, labels, palette: np.ndarray | None = None) -> None:
    """Write integer labels (H, W) in 0-255 as a palette PNG, by default with the colours of this run's classes."""
    image, content = Image.fromarray(np.asarray(labels).astype(np.uint8)), io.BytesIO()
    image.putpalette((classes.current().palette if palette is None else palette).tobytes())
    image.save(content, format="PNG")
    write_atomic(Path(path), content.getvalue(), durable=False)


def list_path(folder, split) -> Path:
    """The file with the list of ids of a split."""
    return Path(folder, LISTS, f"{split}.txt")


def image_path(folder, name) -> Path:
    """JPEGImages/<id>.jpg; in an export also with the other endings that exports.py knows, and so on for the masks."""
    return exports.image_file(_folder(folder, IMAGES, name), name)


def labels_path(folder, name) -> Path:
    return exports.mask_file(_folder(folder, LABELS, name), name)


def instances_path(folder, name) -> Path:
    return exports.mask_file(_folder(folder, INSTANCES, name), name)


def _folder(folder, sub: str, name: str) -> Path:
    """Whatever its list was read with, an id leads to no other folder. Raises UserError."""
    if reason := wrong_id(name):
        raise UserError(f"No file in {Path(folder, sub)} can have the id '{short(name)}', which {reason}.")
    return Path(folder, sub)


def read_list(folder, split) -> list[str]:
    """The ids of a split, in the list's order. Raises FileError as `read_ids` does."""
    return read_ids(list_path(folder, split))


def read_image(folder, name) -> np.ndarray:
    """The photograph as RGB, (H, W, 3) uint8. Raises FileError as `decode_image` does."""
    return np.array(decode_image(folder, name).convert("RGB"))


def decode_image(folder, name) -> Image.Image:
    """Raises FileError if the photograph is missing, truncated or not what its name says: a JPEG or a PNG."""
    path = image_path(folder, name)
    return decode(path, "PNG" if path.suffix.lower() == ".png" else "JPEG", MISSING)


def read_labels(folder, name) -> np.ndarray:
    """The class mask, (H, W) uint8: the labels of the folder's classes, and 255 (void).

    Raises FileError if it is missing, truncated, of a wrong kind, or has an index or a colour that no class has.
    """
    path = labels_path(folder, name)
    return exports.labels_of(path, exports.read(path, MISSING), classes.read(folder))


def read_instances(folder, name) -> np.ndarray:
    """The instance mask, (H, W) uint8: 0 background, 1-254 instances, 255 void. In a folder without instances they are
    the connected components of each class.

    Raises FileError if it is missing, truncated, of a wrong kind, or has more than 254 instances.
    """
    if not has_instances(folder):
        return exports.components(labels_path(folder, name), read_labels(folder, name))
    path = instances_path(folder, name)
    return exports.instances_of(path, exports.read(path, MISSING))


def has_instances(folder) -> bool:
    return bool(exports.mask_folders(Path(folder, INSTANCES)))


def components_note(folder) -> str:
    """A sentence if the folder's objects are connected components, as it was exported or as it was imported; or ""."""
    if not has_instances(folder):
        return COMPONENTS_NOTE
    path = Path(folder, COMPONENTS)
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def count_pixels(labels: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Pixels of each instance and class, (256, 256) int64, from two uint8 masks (H, W)."""
    pairs = instances.astype(np.intp) * 256 + labels
    return np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)


def no_class_error(folder, name, instance: int) -> FileError:
    return FileError(
        instances_path(folder, name),
        f"has instance {instance} without a class: no pixel of it has one in {LABELS}/{name}.png",
        "Give its pixels a class there, or remove the instance",
    )


def objects(folder, names) -> pd.DataFrame:
    """One row per instance of the images `names`, in their order, for a folder that validate.check() finds sound.

    image: id; instance: its value in the instance mask; label: the class that most of its pixels have (void and
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
            votes = counts[instance, 1:VOID]
            if not votes.any():
                raise no_class_error(folder, name, instance)
            mask = instances == instance
            columns, lines = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
            box = columns[0], lines[0], columns[-1] + 1, lines[-1] + 1
            label = int(votes.argmax()) + 1
            rows.append((name, instance, label, *map(int, box), int(pixels[instance]), width, height))
    table = pd.DataFrame(rows, columns=OBJECT_COLUMNS)
    return table.astype(dict.fromkeys(OBJECT_COLUMNS[1:], int))  # also without any row


def read_objects(path, split: str) -> pd.DataFrame:
    """The rows of objects.csv that are of `split`. The only reader of that file: an id is text, 000032 and NA too."""
    return pd.read_csv(path, dtype={"image": str}, keep_default_na=False).query("split == @split")


def size_bin(objects: pd.DataFrame, small: float, medium: float) -> pd.Series:
    """small, medium or large by √(box area) / √(image area)."""
    box = (objects["x2"] - objects["x1"]) * (objects["y2"] - objects["y1"])
    relative = np.sqrt(box / (objects["width"] * objects["height"]))
    return pd.cut(relative, [0, small, medium, np.inf], right=False, labels=SIZES)

"""A folder's files as every stage reads them, JPEG photographs and masks of indices as PNG; and what that changed."""

import os
import shutil
from pathlib import Path

from PIL import Image

from deconvnet.config.errors import UserError
from deconvnet.data import classes, exports, reduced, voc


def missing(path: Path) -> UserError:
    return UserError(f"{path} is missing, although a list names it. Unpack the archive again.")


def link(source: Path, target: Path) -> None:
    """A hard link where possible, otherwise a copy. Raises UserError if there is no such file."""
    source = source.resolve()  # a link to a symbolic link would not survive the move
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise missing(source) from None
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def place(root: Path, folder: Path, name: str) -> None:
    """Takes an image of `root` and its masks into `folder`: linked if they are as they should be, else written."""
    if reduced.is_large(root, name):
        reduced.place(root, folder, name)
        return
    if _is_png(root, name):
        Image.fromarray(voc.read_image(root, name)).save(voc.image_path(folder, name), quality=95, subsampling=0)
    else:
        link(voc.image_path(root, name), voc.image_path(folder, name))
    for path, read, palette in (
        (voc.labels_path, voc.read_labels, classes.read(root).palette),
        (voc.instances_path, voc.read_instances, classes.colour_map()),
    ):
        if exports.is_index_png(path(root, name)):
            link(path(root, name), path(folder, name))
        else:
            voc.save_mask(path(folder, name), read(root, name), palette)


def sentences(root: Path, names: list[str]) -> list[str]:
    """What a user must know of the import of `names` from `root`."""
    said, total = [], len(names)
    if file := classes.file_of(root):
        own = classes.read(root).names
        said.append(f"{len(own)} classes by {file.name}: {', '.join(own)}.")
    if said_of_large := reduced.sentence(root, names):
        said.append(said_of_large)
    if number := sum(_is_png(root, name) for name in names):
        said.append(f"{number} of {total} photographs are PNG: they are stored as JPEG of quality 95.")
    if number := sum(not exports.is_index_png(voc.labels_path(root, name)) for name in names):
        said.append(f"{number} of {total} class masks are colours or arrays: they are stored as the indices they mean.")
    if note := voc.components_note(root):
        said.append(note)
    return said


def _is_png(root: Path, name: str) -> bool:
    return voc.image_path(root, name).suffix.lower() == ".png"

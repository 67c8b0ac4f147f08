"""What can be wrong with a list, a photograph or a mask in VOC layout: each finding with what to do."""

import contextlib
import hashlib
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from deconvnet.data import classes, mask_colours, reading, voc
from deconvnet.data.classes import VOID, Classes
from deconvnet.data.findings import Finding, attempt, error, note
from deconvnet.data.reading import FileError
from deconvnet.data.voc import IMAGES, INSTANCES, LABELS

LAYOUT_ADVICE = "Name a folder in VOC layout (in the official archive: VOCdevkit/VOC2012), or add the sub-folder"
EXIF_ORIENTATION = 274  # EXIF tag: 1 is upright, 2-8 are turned or mirrored
MAX_MIXED_SHARE = 0.05  # of an instance's pixels that may have another class than the majority; VOC's have none


@dataclass(frozen=True)
class Seen:
    """What the check keeps of an image: a hash of the picture, the classes in its mask, whether the mask is a greyscale
    PNG, whether the image has an object; None of what cannot be read.
    """

    pixels: bytes | None
    values: frozenset[int] | None
    grey: bool | None
    objects: bool | None


def list_entries(path: Path) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        problem = "is a link to a folder that does not exist" if os.path.islink(path) else "is missing"
    except NotADirectoryError:
        problem = "is not a folder"
    except OSError as failed:
        raise FileError(path, f"cannot be read ({failed.strerror})", "Change its permissions or links") from None
    raise FileError(path, problem, LAYOUT_ADVICE)


def check_list(path: Path, names: list[str]) -> Iterator[Finding]:
    """What is wrong with a list that reading.read_lines() can read."""
    content = path.read_bytes().decode()
    lines = content.removeprefix("\ufeff").splitlines()
    oddities = {
        "begins with a byte-order mark": content.startswith("\ufeff"),
        "has CRLF line ends": "\r" in content,
        "has blank lines": any(not line.strip() for line in lines),
        "has spaces around ids": any(line.strip() not in ("", line) for line in lines),
    }
    for problem, there in oddities.items():
        if there:
            yield note(path, problem, "It is passed over here; write plain lines for other programs")
    if not names:
        yield error(path, "lists no image", "Write at least one id into it")
    for name, times in Counter(names).items():
        if times > 1:
            yield error(path, f"lists {reading.short(name)} {times} times", "Keep one of these lines")
        if failed := reading.id_error(path, name):
            yield error(failed.file, failed.problem, failed.advice)


def check_overlaps(folder: Path, lists: dict[str, list[str]]) -> Iterator[Finding]:
    for first, second in itertools.combinations(lists, 2):
        if shared := sorted(set(lists[first]) & set(lists[second])):
            problem = f"and {second}.txt share {len(shared)} id(s): {_first(shared)}"
            yield error(voc.list_path(folder, first), problem, "Keep each id in one of them")


def check_image(folder: Path, name: str, subs: Iterable[str]) -> tuple[list[Finding], Seen]:
    """What is wrong with the three files of an id, as far as `subs` has their folders."""
    photograph, mask, objects = (kind(folder, name) for kind in (voc.image_path, voc.labels_path, voc.instances_path))
    found, pixels, shapes = [], None, {}
    image = attempt(found, voc.decode_image, folder, name) if IMAGES in subs else None
    labels = attempt(found, voc.read_labels, folder, name) if LABELS in subs else None
    instances = attempt(found, voc.read_instances, folder, name) if INSTANCES in subs else None
    if image is not None:
        found += _check_photograph(photograph, image)
        pixels = hashlib.blake2b(repr(image.size).encode() + image.convert("RGB").tobytes()).digest()
        shapes[photograph] = image.size
    own = classes.read(folder) if labels is not None else classes.VOC
    arrays = [(mask, labels), (objects, instances)][: 1 + voc.has_instances(folder)]
    shapes |= {path: size for path, array in arrays if (size := _size(path, array))}
    for path, (width, height) in shapes.items():
        wide, high = next(iter(shapes.values()))
        if (width, height) != (wide, high):
            other = "photograph" if image is not None else "class mask"
            problem = f"is {width} x {height} pixels, its {other} {wide} x {high}"
            found.append(error(path, problem, "Make photograph and masks equally large"))
    for path, array in arrays:
        if array is not None and path.suffix.lower() == ".png":
            found += mask_colours.check_colours(path, array, array is labels, own)
    if labels is not None and instances is not None and labels.shape == instances.shape:
        found += _check_objects(folder, name, voc.count_pixels(labels, instances), own)
    values = grey = None
    if labels is not None:
        values, grey = frozenset(np.unique(labels).tolist()), _is_grey(mask)
    with_object = None if instances is None else bool(((instances > 0) & (instances < VOID)).any())
    return found, Seen(pixels, values, grey, with_object)


def _size(path: Path, array: np.ndarray | None) -> tuple[int, int] | None:
    """(width, height) of a mask; of one that has an error, if its header tells."""
    if array is not None:
        return array.shape[::-1]
    if not path.is_file():  # reading a pipe would never end
        return None
    with contextlib.suppress(Exception), Image.open(path, formats=["PNG"]) as image:
        return image.size


def _is_grey(path: Path) -> bool:
    if path.suffix.lower() != ".png":
        return False
    with Image.open(path, formats=["PNG"]) as image:
        return image.mode == "L"


def _check_photograph(path: Path, image: Image.Image) -> Iterator[Finding]:
    if image.mode == "L":
        yield note(path, "is greyscale", "It is read as RGB with three equal channels; leave it if it is meant so")
    elif image.mode != "RGB":
        yield error(path, f"has {image.mode} colours", "Convert it to RGB: programs differ in how they show it")
    try:
        with warnings.catch_warnings(action="ignore"):
            orientation = image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # broken metadata turn nothing; PIL raises as many kinds for them as for broken pictures
        orientation = None
    if orientation in range(2, 9):
        problem = f"is turned or mirrored by its EXIF orientation, {orientation}, and its masks are not"
        advice = "Store it as it lies over its masks, without the tag (ImageMagick: mogrify -auto-orient, or -strip)"
        yield error(path, problem, advice)


def _check_objects(folder: Path, name: str, counts: np.ndarray, own: Classes = classes.VOC) -> Iterator[Finding]:
    """What does not fit between the two masks. counts: pixels of each instance and class, (256, 256)."""
    path, of_class = voc.instances_path(folder, name), counts[:, 1:VOID]
    for instance in map(int, np.flatnonzero(counts[1:VOID].any(axis=1)) + 1):
        votes = of_class[instance]
        if counts[instance, VOID] == counts[instance].sum():
            problem = f"has instance {instance} without an area: {LABELS}/{name}.png is void at all of its pixels"
            yield error(path, problem, f"{VOID} is void: give its pixels a class there, or remove the instance")
        elif not votes.any():
            failed = voc.no_class_error(folder, name, instance)
            yield error(failed.file, failed.problem, failed.advice)
        elif np.count_nonzero(votes) > 1:
            shares = ", ".join(f"{own.names[k + 1]} ({votes[k]} pixels)" for k in np.flatnonzero(votes))
            report = error if votes.sum() - votes.max() > MAX_MIXED_SHARE * votes.sum() else note
            problem = f"has instance {instance} over several classes: {shares}"
            yield report(path, problem, "Give each instance one class; here most pixels decide")
    bare, pixels = of_class[[0, VOID]].sum(axis=0), of_class.sum(axis=0)
    for k in np.flatnonzero(bare):
        report = error if bare[k] == pixels[k] else note  # VOC's own lack none; masks made from boxes lack some
        problem = f"has no instance at {bare[k]} of the {pixels[k]} pixels of class {k + 1}, {own.names[k + 1]}"
        yield report(path, problem, f"Give each object a number of its own, 1-{VOID - 1}: {VOID} is void")


def check_split(folder: Path, split: str, images: dict[str, Seen]) -> Iterator[Finding]:
    """Whether there is something to learn from, or to measure on. `images` are those of the split.

    A val without any object is allowed, since VOC's test list has no ground truth.
    """
    void = [name for name, seen in images.items() if seen.values == {VOID}]
    binary = [name for name, seen in images.items() if seen.values == {0, VOID}]
    if images and all(seen.objects is False for seen in images.values()):
        path, problem = voc.list_path(folder, split), f"lists {len(images)} image(s) without any object"
        if binary:
            problem += f", with masks of 0 and {VOID} alone: {_first(binary)}"
            yield error(path, problem, f"{VOID} is void, which does not count: write the label of an object's class")
        elif split == "val":
            yield note(
                path, problem, "What needs one is not measured; if all is void, nothing is, and there are only maps"
            )
        else:
            yield error(path, problem, "Nothing can be learned or selected from it. List images with objects")
        return
    for name in void:
        advice = "Nothing is learned from it or measured on it. Label it, or take its id out of the lists"
        yield note(voc.labels_path(folder, name), "is void throughout", advice)
    for name in binary:
        problem, advice = f"has no class but background and {VOID}", f"{VOID} is void. Write the class of each object"
        yield note(voc.labels_path(folder, name), problem, advice)


def check_repeated(
    folder: Path, images: dict[str, Seen], lists: dict[str, list[str]], split: bool
) -> Iterator[Finding]:
    """The same picture under two ids: what is learned from must not be measured on. Lists that are not `split` will
    be.
    """
    first_of = {}
    for name, pixels in ((name, seen.pixels) for name, seen in images.items()):
        if pixels and (first := first_of.setdefault(pixels, name)) != name:
            one, other = (next(split for split in lists if n in lists[split]) for n in (first, name))
            where = ", which a split may put into another list"
            if split:
                where = "" if one == other else f", which is in {one}.txt, not in {other}.txt"
            report = error if where else note
            yield report(
                voc.image_path(folder, name),
                f"is the same picture as {voc.image_path(folder, first).name}{where}",
                "Keep one of them",
            )


def check_classes(folder: Path, images: Iterable[Seen]) -> Iterator[Finding]:
    """Classes of the folder's list that no mask has."""
    seen = frozenset().union(*(one.values or () for one in images))
    absent = [name for label, name in enumerate(classes.read(folder).names) if label and label not in seen]
    if absent and (path := classes.file_of(folder)):
        problem = f"has {len(absent)} class(es) that no mask has: {_first(absent)}"
        yield note(path, problem, "Nothing is learned of them. See that list and masks belong together")


def check_unlisted(folder: Path, entries: dict, names: list[str], splits: Iterable[str]) -> Iterator[Finding]:
    """One note a sub-folder: the official archive has thousands of photographs for other tasks."""
    known = {*names}
    for sub in (IMAGES, LABELS, INSTANCES):
        if extra := sorted(file for file in entries.get(sub, []) if os.path.splitext(file)[0] not in known):
            of = f"that {', '.join(splits)} do not list" if splits else "without a photograph or mask of the same name"
            problem = f"has {len(extra)} file(s) {of}: {_first(extra)}"
            yield note(folder / sub, problem, "They are not used. List them, or leave them")


def _first(names: list[str]) -> str:
    return ", ".join(map(reading.short, names[:5])) + (", ..." if len(names) > 5 else "")

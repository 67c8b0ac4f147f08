"""Everything that is wrong with a folder in VOC layout, found in one pass, each with what to do.

    python -m deconvnet.voc check FOLDER            prints it as text; exit status 1 if there is an error
    python -m deconvnet.voc check FOLDER --json     as a list of {file, problem, advice, severity}

An error makes the folder unusable. A note is worth a look: training and evaluation run all the same.
"""

import argparse
import hashlib
import itertools
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from PIL import Image
from tqdm import tqdm

from deconvnet import machine, reading, voc
from deconvnet.errors import UserError
from deconvnet.reading import FileError
from deconvnet.voc import CLASSES, IMAGES, INSTANCES, LABELS, LISTS, VOID

LAYOUT = "Name a folder in VOC layout (of the official archive: VOCdevkit/VOC2012), or add the sub-folder"
ORIENTATION = 274  # the EXIF tag; 1 is upright, 2-8 are turned or mirrored
STRAY = 0.05  # share of an instance's pixels that may have another class than most; VOC's own have none
PER_CORE = 200  # images; with fewer, a further process costs more time than it saves


@dataclass(frozen=True)
class Finding:
    """What is wrong with one file or folder. `problem` is a predicate: "is missing"."""

    file: str
    problem: str
    advice: str
    severity: str  # error | note

    def __str__(self) -> str:
        return f"{self.file} {self.problem}. {self.advice}."


def error(file, problem: str, advice: str, severity: str = "error") -> Finding:
    return Finding(reading.visible(file), problem, advice, severity)


def note(file, problem: str, advice: str) -> Finding:
    return error(file, problem, advice, "note")


def check(folder, splits: Iterable[str]) -> list[Finding]:
    """Everything that is wrong with the folder's `splits`; the same list whatever the number of processes.

    Decodes each listed photograph and mask in full, on all cores. Raises UserError for a wrong DECONVNET_CORES.
    """
    folder, found = Path(folder), []
    if not os.path.isdir(folder):  # os.path, since Path raises for a name that is too long
        return [error(folder, "is not a folder", f"Name the folder that holds {IMAGES} and {LISTS}")]
    entries = {sub: _attempt(found, _entries, folder / sub) for sub in (IMAGES, LABELS, INSTANCES, LISTS)}
    entries = {sub: names for sub, names in entries.items() if names is not None}
    for sub, name in ((sub, name) for sub, names in entries.items() for name in names):
        if any(0xDC80 <= ord(letter) <= 0xDCFF for letter in name):  # how Python shows a byte that is no text
            advice = "No list can name it. Rename it, or leave it"
            found.append(note(folder / sub / name, "has a name that is not UTF-8", advice))
    if LISTS not in entries:
        return found

    lists = {split: _attempt(found, reading.read_lines, voc.list_path(folder, split)) for split in splits}
    for split, names in lists.items():
        if names is not None:
            found += _check_list(voc.list_path(folder, split), names)
    usable = {split: [name for name in names or [] if not reading.wrong_id(name)] for split, names in lists.items()}
    found += _check_overlaps(folder, usable)
    names = list(dict.fromkeys(itertools.chain(*usable.values())))

    cores = max(min(machine.cores(), len(names) // PER_CORE), 1)
    jobs = Parallel(n_jobs=cores, return_as="generator")(delayed(_check_image)(folder, n, list(entries)) for n in names)
    hashes = []
    for problems, pixels in tqdm(jobs, total=len(names), desc="check", unit="image"):
        found += problems
        hashes.append(pixels)
    found += _check_repeated(folder, dict(zip(names, hashes, strict=True)), usable)
    if None not in lists.values():  # else nobody knows what the unreadable list names
        found += _check_unlisted(folder, entries, names, lists)
    return found


def text(folder, found: list[Finding]) -> str:
    """The errors, then the notes, one a line; in the last line how many there are."""
    errors = [str(one) for one in found if one.severity == "error"]
    notes = [f"note: {one}" for one in found if one.severity == "note"]
    verdict = f"cannot be used: {len(errors)} error(s)" if errors else "is sound: no error"
    return "\n".join([*errors, *notes, f"{reading.visible(folder)} {verdict}, {len(notes)} note(s)."])


def _attempt(found: list[Finding], read: Callable, *arguments):
    """What `read` gives, or None and one finding more."""
    try:
        return read(*arguments)
    except FileError as failed:
        found.append(error(failed.file, failed.problem, failed.advice))


def _entries(path: Path) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        problem = "is a link to a folder that does not exist" if os.path.islink(path) else "is missing"
    except NotADirectoryError:
        problem = "is not a folder"
    except OSError as failed:
        raise FileError(path, f"cannot be read ({failed.strerror})", "Change its permissions or links") from None
    raise FileError(path, problem, LAYOUT)


def _check_list(path: Path, names: list[str]) -> Iterator[Finding]:
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


def _check_overlaps(folder: Path, lists: dict[str, list[str]]) -> Iterator[Finding]:
    for first, second in itertools.combinations(lists, 2):
        if shared := sorted(set(lists[first]) & set(lists[second])):
            problem = f"and {second}.txt share {len(shared)} id(s): {_first(shared)}"
            yield error(voc.list_path(folder, first), problem, "Keep each id in one of them")


def _check_image(folder: Path, name: str, subs: Iterable[str]) -> tuple[list[Finding], bytes | None]:
    """What is wrong with the three files of an id, as far as `subs` has their folders, and a hash of the picture."""
    photograph, mask, objects = (kind(folder, name) for kind in (voc.image_path, voc.labels_path, voc.instances_path))
    found, pixels, shapes = [], None, {}
    image = _attempt(found, reading.decode, photograph, "JPEG", voc.MISSING) if IMAGES in subs else None
    labels = _attempt(found, voc.read_labels, folder, name) if LABELS in subs else None
    instances = _attempt(found, voc.read_instances, folder, name) if INSTANCES in subs else None
    if image is not None:
        found += _check_photograph(photograph, image)
        pixels = hashlib.blake2b(repr(image.size).encode() + image.convert("RGB").tobytes()).digest()
        shapes[photograph] = image.size
    shapes |= {path: array.shape[::-1] for path, array in ((mask, labels), (objects, instances)) if array is not None}
    for path, (width, height) in shapes.items():
        wide, high = next(iter(shapes.values()))
        if (width, height) != (wide, high):
            other = "photograph" if image is not None else "class mask"
            problem = f"is {width} x {height} pixels, its {other} {wide} x {high}"
            found.append(error(path, problem, "Make photograph and masks equally large"))
    if labels is not None and (labels == VOID).all():
        advice = "Nothing is learned from it or measured on it. Label it, or take its id out of the lists"
        found.append(note(mask, "is void throughout", advice))
    if labels is not None and instances is not None and labels.shape == instances.shape:
        found += _check_objects(folder, name, voc.count_pixels(labels, instances))
    return found, pixels


def _check_photograph(path: Path, image: Image.Image) -> Iterator[Finding]:
    if image.mode == "L":
        yield note(path, "is greyscale", "It is read as RGB with three equal channels; leave it if it is meant so")
    elif image.mode != "RGB":
        yield error(path, f"has {image.mode} colours", "Convert it to RGB: programs differ in how they show it")
    try:
        with warnings.catch_warnings(action="ignore"):
            orientation = image.getexif().get(ORIENTATION)
    except Exception:  # broken metadata turn nothing; PIL raises as many kinds for them as for broken pictures
        orientation = None
    if orientation in range(2, 9):
        problem = f"is turned or mirrored by its EXIF orientation, {orientation}, and its masks are not"
        advice = "Store it as it lies over its masks, without the tag (ImageMagick: mogrify -auto-orient, or -strip)"
        yield error(path, problem, advice)


def _check_objects(folder: Path, name: str, counts: np.ndarray) -> Iterator[Finding]:
    """What does not fit between the two masks. counts: pixels of each instance and class, (256, 256)."""
    path, of_class = voc.instances_path(folder, name), counts[:, 1 : len(CLASSES)]
    for instance in map(int, np.flatnonzero(counts[1:VOID].any(axis=1)) + 1):
        votes = of_class[instance]
        if counts[instance, VOID] == counts[instance].sum():
            problem = f"has instance {instance} without an area: {LABELS}/{name}.png is void at all of its pixels"
            yield error(path, problem, "Give its pixels a class there, or remove the instance")
        elif not votes.any():
            failed = voc.without_class(folder, name, instance)
            yield error(failed.file, failed.problem, failed.advice)
        elif np.count_nonzero(votes) > 1:
            shares = ", ".join(f"{CLASSES[k + 1]} ({votes[k]} pixels)" for k in np.flatnonzero(votes))
            report = error if votes.sum() - votes.max() > STRAY * votes.sum() else note
            problem = f"has instance {instance} over several classes: {shares}"
            yield report(path, problem, "Give each instance one class; here most pixels decide")
    bare, pixels = of_class[[0, VOID]].sum(axis=0), of_class.sum(axis=0)
    for k in np.flatnonzero(bare):
        report = error if bare[k] == pixels[k] else note  # VOC's own lack none; masks made from boxes lack some
        problem = f"has no instance at {bare[k]} of the {pixels[k]} pixels of class {k + 1}, {CLASSES[k + 1]}"
        yield report(path, problem, "Give each object a number of its own")


def _check_repeated(folder: Path, hashes: dict[str, bytes | None], lists: dict[str, list[str]]) -> Iterator[Finding]:
    """The same picture under two ids: what is learned from must not be measured on."""
    first_of = {}
    for name, pixels in hashes.items():
        if pixels and (first := first_of.setdefault(pixels, name)) != name:
            one, other = (next(split for split in lists if n in lists[split]) for n in (first, name))
            where = "" if one == other else f", which is in {one}.txt, not in {other}.txt"
            report = error if where else note
            yield report(voc.image_path(folder, name), f"is the same picture as {first}.jpg{where}", "Keep one of them")


def _check_unlisted(folder: Path, entries: dict, names: list[str], splits: Iterable[str]) -> Iterator[Finding]:
    """One note a sub-folder: the official archive has thousands of photographs for other tasks."""
    for sub, suffix in ((IMAGES, ".jpg"), (LABELS, ".png"), (INSTANCES, ".png")):
        if extra := sorted(set(entries.get(sub, [])) - {f"{name}{suffix}" for name in names}):
            problem = f"has {len(extra)} file(s) that {', '.join(splits)} do not list: {_first(extra)}"
            yield note(folder / sub, problem, "They are not used. List them, or leave them")


def _first(names: list[str]) -> str:
    return ", ".join(map(reading.short, names[:5])) + (", ..." if len(names) > 5 else "")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deconvnet.voc", description="The VOC segmentation layout.")
    parser.add_argument("command", choices=["check"], help="prints everything that is wrong with a folder")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="as a list of {file, problem, advice, severity}")
    arguments = parser.parse_args()
    folder = arguments.folder
    # dev.txt is optional: import holds a part of train out where it is missing
    splits = [split for split in voc.SPLITS if split != "dev" or os.path.lexists(voc.list_path(folder, "dev"))]
    try:
        found = check(folder, splits)
    except UserError as failed:
        sys.exit(str(failed))
    said = json.dumps([asdict(one) for one in found], indent=1) if arguments.json else text(folder, found)
    sys.stdout.reconfigure(errors="backslashreplace")  # ids may have letters that the terminal's encoding has not
    try:
        print(said, flush=True)
    except BrokenPipeError:  # as `| head` does; what is left goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(any(one.severity == "error" for one in found))

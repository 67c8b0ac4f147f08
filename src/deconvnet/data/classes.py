"""The classes of a data set: their names in the order of their labels, and their colours in masks and figures.

    labelmap.txt                 name:r,g,b:parts:actions, one class a line, as CVAT writes it
    class_names.txt, labels.txt  one name a line, as labelme has them; the colours are VOC's colour map

A folder without such a file has VOC's 21 classes. Label 0 is the background: the class called background or
_background_, or one that no list names. A class called __ignore__, ignore, ignored or void is none: it is void.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from deconvnet.config import paths
from deconvnet.data.reading import FileError, read_lines

VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOID = 255
LABELMAP = "labelmap.txt"
FILES = (LABELMAP, "class_names.txt", "labels.txt")
BACKGROUND = ("background", "_background_", "__background__")
IGNORED = ("__ignore__", "_ignore_", "ignore", "ignored", "void")
TAKEN = ("mean", "data", "source")  # columns of table 1
Colour = tuple[int, int, int]


def colour_map() -> np.ndarray:
    """VOC's colour map, (256, 3) uint8: the bits of the label go to R, G, B in turn, highest bit first."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


MAP = [tuple(colour) for colour in colour_map().tolist()]


@dataclass(frozen=True)
class Classes:
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    void: Colour = MAP[VOID]  # of void, in masks of colours
    coloured: bool = True  # whether the list says the colours: then they are held against a mask's palette
    moved: bool = False  # the background is not first in the list: an index mask would be read by a guess

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def palette(self) -> np.ndarray:
        """(256, 3) uint8: the colour of each label, VOC's colour map where no class has one."""
        colours = colour_map()
        colours[: len(self)], colours[VOID] = self.colours, self.void
        return colours

    @property
    def are_vocs(self) -> bool:
        return self.names == VOC_NAMES


VOC = Classes(VOC_NAMES, tuple(MAP[: len(VOC_NAMES)]))


def file_of(folder) -> Path | None:
    """The class list of a folder: the first of FILES that is there."""
    return next((Path(folder, name) for name in FILES if os.path.lexists(os.path.join(folder, name))), None)


def read(folder) -> Classes:
    """The classes of a folder. Raises FileError with everything that is wrong with its list."""
    path = file_of(folder)
    if path is None:
        return VOC
    lines = [line for line in read_lines(path) if not line.startswith("#")]
    rows = [_row(path, line) for line in lines] if path.name == LABELMAP else [(line, None) for line in lines]
    void = next((colour for name, colour in rows if name in IGNORED and colour), VOC.void)
    rows = [row for row in rows if row[0] not in IGNORED]
    is_background = [name in BACKGROUND for name, _ in rows]
    if not any(is_background):
        rows.insert(0, (BACKGROUND[0], MAP[0]))
    rows.sort(key=lambda row: row[0] not in BACKGROUND)  # the first; the others keep their order
    names = [BACKGROUND[0] if name in BACKGROUND else name for name, _ in rows]
    moved, coloured = any(is_background) and not is_background[0], path.name == LABELMAP
    colours = [colour for _, colour in rows] if coloured else MAP[: len(rows)]
    if problems := [*_problems(names, [*colours, void], moved and not coloured)]:
        raise FileError(path, "; ".join(problems), "Correct the list, so that it fits the masks")
    return Classes(tuple(names), tuple(colours), void, coloured, moved)


def _row(path: Path, line: str) -> tuple[str, Colour]:
    """name:r,g,b:parts:actions; a name may have colons."""
    found = re.fullmatch(r"(.+?)\s*:\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*(:[^:]*){0,2}", line)
    if not found or max(colour := tuple(map(int, found.group(2, 3, 4)))) > 255:
        problem = f"has the line '{line[:60]}', which is not name:red,green,blue:: with numbers of 0-255"
        raise FileError(path, problem, "Write a class a line, for instance cat:64,0,0::")
    return found.group(1), colour


def _problems(names: list[str], colours: list[Colour], background_late: bool) -> Iterator[str]:
    """What is wrong with a list. `colours` are those of the names, and void's."""
    for name, times in Counter(names).items():
        if times > 1:
            yield f"names the class {name} {times} times"
        if name in TAKEN or "|" in name or not name.isprintable() or not name:
            yield f"has the class {name!r}, a name that tables cannot show"
    if len(names) == 1:
        yield "names no class beside the background"
    if len(names) > VOID:
        yield f"names {len(names)} classes with the background, more than the {VOID} that masks of 8 bits can have"
    if background_late:
        yield "names the background after another class, although its label is 0"
    for colour, times in Counter(colours).items():
        if times > 1 and len(names) <= VOID:
            of = [name for name, own in zip([*names, "void"], colours, strict=True) if own == colour]
            if len(set(of)) > 1:
                yield f"gives {', '.join(of)} one colour, {','.join(map(str, colour))}"


def current() -> Classes:
    """The classes of the data set that this run works on."""
    return read(paths.VOC)


def write(folder: Path, own: Classes) -> None:
    """Writes labelmap.txt; none for VOC's classes in VOC's colours, which a folder has without one."""
    if (own.names, own.colours) != (VOC.names, VOC.colours):
        rows = [f"{name}:{','.join(map(str, c))}::\n" for name, c in zip(own.names, own.colours, strict=True)]
        text = "# label:color_rgb:parts:actions\n" + "".join(rows)
        (folder / LABELMAP).write_text(text, encoding="utf-8")

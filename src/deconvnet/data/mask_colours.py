"""Whether a mask's colours and its indices say the same. Only the indices are labels, but an editor or an optimiser
that rebuilds a palette keeps the colours and changes the indices; a conversion to grey keeps neither.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from deconvnet.data import classes, voc
from deconvnet.data.classes import VOID, Classes
from deconvnet.data.findings import Finding, error, note

SAME_COLOUR = 4  # of 255: palettes are rounded; VOC's colours are 32 apart, and of nearer ones the nearest counts
# What classes' colours become in a conversion to grey, where that is a class again: by Rec. 601 boat (15) and cat (19),
# by Rec. 709 boat (9) and cat (14). The grey of every other class's colour, and of void's, is no label.
GREYS_OF_COLOURS = ({15, 19}, {9, 14})
ADVICE = "The index is the label, whatever its colour: store each class as its index, best with its own colour"


def palette_of(path: Path) -> np.ndarray | None:
    """The palette of a PNG that reading.decode() has accepted, (colours, 3) int; None if it has none."""
    with Image.open(path, formats=["PNG"]) as image:
        return None if image.palette is None else np.array([*image.palette.getdata()[1]]).reshape(-1, 3)


def check_colours(path: Path, labels: np.ndarray, of_classes: bool, own: Classes = classes.VOC) -> Iterator[Finding]:
    """What the palette of a mask says against its indices, labels (H, W) uint8. In an instance mask, not `of_classes`,
    only background and void have numbers, and so colours, of their own.
    """
    if of_classes and not own.coloured:
        return
    own = own if of_classes else classes.VOC
    named = {**dict(enumerate(own.names)), VOID: "void"}
    colours = palette_of(path)
    if colours is None or (len(colours) > 1 and (colours == colours[0]).all()):  # a palette that was never filled
        return
    used = np.flatnonzero(np.bincount(labels.ravel()))
    used = used[used < len(colours)]
    colours = colours[used]
    _, group, times = np.unique(colours, axis=0, return_inverse=True, return_counts=True)
    alone = times[group.ravel()] == 1  # colours that several indices share tell nothing
    known = np.array(list(named) if of_classes else [0, VOID])
    apart = np.abs(colours[:, None] - own.palette[known].astype(int)).max(axis=2)
    apart[:, 0] = np.where((colours == own.palette[0]).all(axis=1), 0, 256)  # near-black is a step of a grey palette
    meant = np.where(apart.min(axis=1) <= SAME_COLOUR, known[apart.argmin(axis=1)], -1)
    wrong = alone & (meant >= 0) & (meant != used)
    if wrong.any():
        rebuilt = not of_classes or (meant >= 0).all() or 0 in meant[wrong]
        shown = [
            f"{i} that of {j}, {named[j]}" for i, j in zip(used[wrong].tolist(), meant[wrong].tolist(), strict=True)
        ]
        problem = f"has indices with other labels' colours: {_first(shown)}"
        yield (error if rebuilt else note)(path, problem, ADVICE)
        return
    greys = colours[:, 0]
    if of_classes and (colours == greys[:, None]).all() and (alone & (greys != used)).any():
        # an optimiser may have given a palette to an 8-bit greyscale PNG
        was_grey = set(greys.tolist()) <= {*named} and set(greys.tolist()) & set(range(1, len(own)))
        shown = [f"{i} the grey {grey}" for i, grey in zip(used.tolist(), greys.tolist(), strict=True) if i != grey]
        yield (error if was_grey else note)(path, f"has indices that are not their greys: {_first(shown)}", ADVICE)


def _first(shown: list[str]) -> str:
    return ", ".join(shown[:4]) + (", ..." if len(shown) > 4 else "")


def check_greys(folder: Path, values: Iterable[frozenset[int]]) -> Iterator[Finding]:
    """values: the classes in each of the folder's masks, all of them greyscale PNGs without a palette."""
    found = frozenset().union(*values) - {0}
    if found and any(found <= greys for greys in GREYS_OF_COLOURS):
        shown = " and ".join(f"{label} ({classes.VOC_NAMES[label]})" for label in sorted(found))
        problem = f"has greyscale masks of the class {shown} alone, which is also what boats or cats become"
        advice = "If they were converted from VOC's colours to grey, store the class of each pixel instead"
        yield note(folder / voc.LABELS, problem, advice)

"""Masks whose stored values are not the class indices: generated palettes, bit depths and conversions, each refused,
noted, or read as what it says.
"""

import struct
import tempfile
import zlib
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_voc import INSTANCES, LABELS, write_folder

from deconvnet.config.errors import UserError
from deconvnet.data import checks, classes, mask_colours, validate, voc

GREY, PALETTE = 0, 3  # PNG's colour types
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
generated = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def write_png(path, values, depth, colour_type, palette=None, interlaced=False, chunks=()):
    """A PNG with these samples, as its specification says; PIL does not write all kinds."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def rows(part):
        bits = np.unpackbits(part.astype(">u2").view(np.uint8).reshape(*part.shape, 2), axis=2)[..., -depth:]
        return b"".join(b"\0" + np.packbits(row).tobytes() for row in bits.reshape(len(part), -1))

    height, width = values.shape
    passes = [values[y::down, x::right] for x, y, right, down in (ADAM7 if interlaced else [(0, 0, 1, 1)])]
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    palette = [] if palette is None else [(b"PLTE", np.asarray(palette, np.uint8).tobytes())]
    for one in sorted([*chunks, *palette], key=lambda one: one[0] == b"tRNS"):  # which comes last
        content += chunk(*one)
    content += chunk(b"IDAT", zlib.compress(b"".join(rows(part) for part in passes if part.size)))
    Path(path).write_bytes(content + chunk(b"IEND", b""))


def problems(labels, palette, of_classes=True):
    """(severity, problem) of what the colours say against the indices."""
    with tempfile.TemporaryDirectory() as folder:
        write_png(Path(folder, "m.png"), labels, 8, PALETTE, palette)
        found = mask_colours.check_colours(Path(folder, "m.png"), labels.astype(np.uint8), of_classes)
        return [(one.severity, one.problem) for one in found]


label = st.sampled_from([*range(21), voc.VOID])


@generated
@given(st.lists(label, min_size=1, max_size=22, unique=True))
@example([0, 1, 2, 3])
@example([0, 15, 255])
@example([255, 0])
@example([0, 255])
def test_a_rebuilt_palette_is_an_error_unless_every_index_stayed(order):
    """The colours of some labels, in any order, became the indices 0, 1, 2 ..."""
    stored = np.arange(len(order))[None]
    found = problems(stored, classes.colour_map()[order])
    if order == list(range(len(order))):
        assert found == []
    else:
        ((severity, problem),) = found
        assert severity == "error"
        moved = next(i for i, meant in enumerate(order) if i != meant)
        name = [*classes.VOC_NAMES, "void"][min(order[moved], len(classes.VOC_NAMES))]
        assert f"{moved} that of {order[moved]}, {name}" in problem


@generated
@given(
    arrays.arrays(np.uint8, (3, 5), elements=label), st.sampled_from(["VOC", "grey", "other", "one colour", "short"])
)
def test_right_indices_need_no_particular_colours(labels, kind):
    palettes = {
        "VOC": classes.colour_map(), "grey": np.arange(256)[:, None].repeat(3, axis=1),
        "one colour": np.zeros((256, 3)), "short": classes.colour_map()[:2],
        "other": np.stack([np.arange(256), np.full(256, 77), 255 - np.arange(256)], axis=1),
    }  # fmt: skip
    assert problems(labels, palettes[kind]) == []


BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (128, 0, 0), (0, 128, 0)
PALETTES = {  # used indices and their colours; severity and problem
    "rounded colours": ({0: BLACK, 1: (1, 127, 2)}, "error", "1 that of 2, bicycle"),
    "a custom colour beside one of VOC's": ({0: BLACK, 1: GREEN, 5: (9, 9, 99)}, "note", "1 that of 2, bicycle"),
    "background elsewhere": ({3: BLACK, 12: (102, 0, 0)}, "error", "3 that of 0, background"),
    "an optimised greyscale PNG": ({0: BLACK, 1: (15,) * 3, 2: WHITE}, "error", "1 the grey 15, 2 the grey 255"),
    "black and white": ({0: BLACK, 1: WHITE}, "note", "1 the grey 255"),
    "two colours": ({0: BLACK, 1: (255, 0, 0)}, None, None),
}


@pytest.mark.parametrize(("colours", "severity", "problem"), PALETTES.values(), ids=PALETTES)
def test_palettes_by_hand(colours, severity, problem):
    palette = np.full((256, 3), 200)
    palette[[*colours]] = [*colours.values()]
    found = problems(np.array([[*colours]]), palette)
    assert [one for one, _ in found] == ([severity] if severity else [])
    assert all(text.endswith(problem) for _, text in found)


@pytest.mark.parametrize(("order", "wrong"), [((0, 2, 1), False), ((0, 1, 255), True), ((1, 0), True)])
def test_of_instances_only_background_and_void_have_colours(order, wrong):
    assert len(problems(np.arange(len(order))[None], classes.colour_map()[list(order)], of_classes=False)) == wrong


CHUNKS = {
    "plain": (), "transparent": ((b"tRNS", b"\0"),), "gamma": ((b"gAMA", struct.pack(">I", 45455)),),
    "sRGB": ((b"sRGB", b"\0"),),
}  # fmt: skip


@generated
@given(
    st.sampled_from([*((depth, PALETTE) for depth in (1, 2, 4, 8)), *((depth, GREY) for depth in (1, 2, 4, 8, 16))]),
    st.booleans(),
    st.sampled_from(sorted(CHUNKS)),
    st.data(),
)
def test_any_bit_depth_is_read_as_it_is_or_refused(storage, interlaced, chunks, data):
    depth, kind = storage
    allowed = [value for value in (*range(21), voc.VOID) if value < 2**depth]
    labels = data.draw(arrays.arrays(np.uint8, (9, 11), elements=st.sampled_from(allowed)))
    palette = classes.colour_map()[: 2**depth] if kind == PALETTE else None
    extra = [(name, b"\0" * (2 if kind == GREY and name == b"tRNS" else 1) if name == b"tRNS" else content)
             for name, content in CHUNKS[chunks]]  # fmt: skip
    with tempfile.TemporaryDirectory() as root:
        path = voc.labels_path(root, "a")
        path.parent.mkdir()
        write_png(path, labels, depth, kind, palette, interlaced, extra)
        if kind == GREY and depth != 8:
            with pytest.raises(UserError, match="not a palette, 8-bit greyscale or 8-bit RGB PNG"):
                voc.read_labels(root, "a")
        else:
            assert (voc.read_labels(root, "a") == labels).all()
            assert [*mask_colours.check_colours(path, labels, of_classes=True)] == []


def store_all(folder, make):
    """Writes the class mask of each image anew: make(labels, path)."""
    for name in "abc":
        make(LABELS, voc.labels_path(folder, name))


def as_grey(factors):
    def make(labels, path):
        colours = np.where(labels[..., None] > 0, voc.colorize(np.full_like(labels, make.label)), 0)
        Image.fromarray((colours @ factors).round().astype(np.uint8)).save(path)

    return make


@pytest.mark.parametrize("factors", [(0.299, 0.587, 0.114), (0.2126, 0.7152, 0.0722)], ids=["601", "709"])
@pytest.mark.parametrize("label", range(1, 21))
def test_greys_of_colours_are_refused_or_noted(tmp_path, factors, label):
    folder, make = write_folder(tmp_path / "voc"), as_grey(factors)
    make.label = label
    store_all(folder, make)
    assert any(voc.LABELS in one.file for one in validate.check(folder, ["train", "val"]))


def test_greyscale_masks_of_labels_are_sound(tmp_path):
    folder = write_folder(tmp_path / "voc")
    store_all(folder, lambda labels, path: Image.fromarray(labels).save(path))
    assert validate.check(folder, ["train", "val"]) == []


def test_a_folder_with_rebuilt_palettes_is_refused(tmp_path):
    """As an optimiser leaves VOC's masks: background 0, person, car and void 1 to 3."""
    folder, order = write_folder(tmp_path / "voc"), [0, 15, 7, 255]
    indices = np.searchsorted(np.sort(order), LABELS)
    stored = np.array([order.index(value) for value in np.sort(order)])[indices]
    store_all(folder, lambda labels, path: write_png(path, stored, 2, PALETTE, classes.colour_map()[order]))
    found = [one for one in validate.check(folder, ["train", "val"]) if "other labels' colours" in one.problem]
    assert [one.severity for one in found] == ["error"] * 3
    assert "1 that of 15, person" in found[0].problem


MASKS = {  # class mask, instance mask
    "objects": (LABELS, INSTANCES),
    "void": (np.full_like(LABELS, voc.VOID),) * 2,
    "background": (np.zeros_like(LABELS),) * 2,
    "binary": (np.where(LABELS > 0, voc.VOID, 0),) * 2,
}
SPLITS = {"train": "ab", "dev": "c", "val": "de"}


@generated
@given(st.fixed_dictionaries({name: st.sampled_from(sorted(MASKS)) for name in "abcde"}))
@example(dict.fromkeys("abc", "objects") | dict.fromkeys("de", "void"))
@example(dict.fromkeys("abcde", "binary"))
def test_splits_without_objects(kinds):
    """An error of train and dev, and of each split with binary masks; a note of val, as of VOC's test list."""
    seen = {}
    for name, kind in kinds.items():
        labels, instances = MASKS[kind]
        values = frozenset(np.unique(labels).tolist())
        seen[name] = checks.Seen(None, values, False, bool(set(np.unique(instances)) - {0, voc.VOID}))
    for split, names in SPLITS.items():
        found = [*checks.check_split(Path("f"), split, {name: seen[name] for name in names})]
        of = {kinds[name] for name in names}
        if "objects" in of:
            assert [one.severity for one in found] == ["note"] * sum(kinds[n] in ("void", "binary") for n in names)
        else:
            (one,) = found
            assert one.severity == ("note" if split == "val" and "binary" not in of else "error")
            assert one.file == f"f/ImageSets/Segmentation/{split}.txt"
            assert f"{len(names)} image(s) without any object" in one.problem
            assert ("255 is void" in one.advice) == ("binary" in of)


@pytest.mark.parametrize("kind", ["void", "background", "binary"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_folder_with_a_split_without_objects(tmp_path, kind, split):
    folder = write_folder(tmp_path / "voc")
    for name in voc.read_list(folder, split):
        for path, mask in zip((voc.labels_path, voc.instances_path), MASKS[kind], strict=True):
            voc.save_mask(path(folder, name), mask)
    (found,) = validate.check(folder, ["train", "val"])
    assert found.severity == ("note" if split == "val" and kind != "binary" else "error")
    if split == "val":
        objects = voc.objects(folder, voc.read_list(folder, "val"))
        assert len(objects) == 0
        assert voc.size_bin(objects, 0.15, 0.4).empty

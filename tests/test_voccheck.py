"""The check of a data folder: some seventy bad folders with what is found in each, and files at random."""

import contextlib
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hypothesis.configuration
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_voc import INSTANCES, LABELS, write_folder, write_image, write_list

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.data import checks, validate, voc

SLICE = Path(__file__).resolve().parents[2] / "shared" / "voc2012"
SPLITS = ["train", "val"]

# the same examples each time, and nothing kept in the project: a test says the same today and tomorrow
hypothesis.configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir(), "hypothesis"))
random_files = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "voc")


@contextlib.contextmanager
def fresh_folder():
    """A sound folder for one random example."""
    with tempfile.TemporaryDirectory() as root:
        yield write_folder(Path(root, "voc"))


def draw(path, mode="RGB", kind="JPEG", **options):
    """A picture of the right size."""
    Image.new(mode, LABELS.shape[::-1]).save(path, kind, **options)


def draw_turned(path):
    exif = Image.Exif()
    exif[checks.EXIF_ORIENTATION] = 6
    draw(path, exif=exif)


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def changed(array, rows, columns, value):
    array = array.copy()
    array[rows, columns] = value
    return array


def replace(path, make):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


def link_to_nothing(path):
    replace(path, lambda there: there.symlink_to("nowhere"))


def note_unlisted(*names):
    """What is found where the photographs and masks of some ids are there and no list has the id."""
    return [
        f"note: {sub} has {len(names)} file(s) that train, val do not list: {', '.join(f'{n}.{end}' for n in names)}"
        for sub, end in ((voc.IMAGES, "jpg"), (voc.LABELS, "png"), (voc.INSTANCES, "png"))
    ]


# all that is found in a folder, after what is done to it
FOLDERS = {
    "missing": (shutil.rmtree, ["error: . is not a folder"]),
    "a file": (lambda f: replace(f, Path.touch), ["error: . is not a folder"]),
    "empty": (
        lambda f: replace(f, Path.mkdir),
        [f"error: {sub} is missing" for sub in (voc.IMAGES, voc.LABELS, voc.INSTANCES, voc.LISTS)],
    ),
    "no photographs": (lambda f: shutil.rmtree(f / voc.IMAGES), ["error: JPEGImages is missing"]),
    "no classes": (lambda f: shutil.rmtree(f / voc.LABELS), ["error: SegmentationClass is missing"]),
    "no instances": (lambda f: shutil.rmtree(f / voc.INSTANCES), ["error: SegmentationObject is missing"]),
    "no lists": (lambda f: shutil.rmtree(f / "ImageSets"), ["error: ImageSets/Segmentation is missing"]),
    "classes a file": (lambda f: replace(f / voc.LABELS, Path.touch), ["error: SegmentationClass is not a folder"]),
    "classes nowhere": (
        lambda f: link_to_nothing(f / voc.LABELS),
        ["error: SegmentationClass is a link to a folder that does not exist"],
    ),
    "classes in a circle": (
        lambda f: replace(f / voc.LABELS, lambda path: path.symlink_to(path)),
        ["error: SegmentationClass cannot be read"],
    ),
    "extension in capitals": (
        lambda f: voc.image_path(f, "b").rename(f / "JPEGImages" / "b.JPG"),
        ["error: JPEGImages/b.jpg is missing", "note: JPEGImages has 1 file(s) that train, val do not list: b.JPG"],
    ),
    "no photograph and masks of two sizes": (
        lambda f: (voc.image_path(f, "b").unlink(), voc.save_mask(voc.instances_path(f, "b"), INSTANCES[1:])),
        [
            "error: JPEGImages/b.jpg is missing",
            "error: SegmentationObject/b.png is 30 x 19 pixels, its class mask 30 x 20",
        ],
    ),
    "picture in train and val": (
        lambda f: shutil.copy(voc.image_path(f, "a"), voc.image_path(f, "c")),
        ["error: JPEGImages/c.jpg is the same picture as a.jpg, which is in train.txt, not in val.txt"],
    ),
    "picture twice in train": (
        lambda f: shutil.copy(voc.image_path(f, "a"), voc.image_path(f, "b")),
        ["note: JPEGImages/b.jpg is the same picture as a.jpg"],
    ),
    "files without an id": (lambda f: [write_image(f, name) for name in "de"], note_unlisted("d", "e")),
    "file name not UTF-8": (
        lambda f: (f / voc.LABELS / os.fsdecode(b"caf\xe9.png")).touch(),
        [
            r"note: SegmentationClass/caf\udce9.png has a name that is not UTF-8",
            r"note: SegmentationClass has 1 file(s) that train, val do not list: caf\udce9.png",
        ],
    ),
    "file name of two lines": (
        lambda f: (f / voc.IMAGES / "a\nb.jpg").touch(),
        [r"note: JPEGImages has 1 file(s) that train, val do not list: a\nb.jpg"],
    ),
    "train.txt with an id three times": (
        lambda f: write_list(f, "train", "a\nb\na\na\n"),
        ["error: ImageSets/Segmentation/train.txt lists a 3 times"],
    ),
    "id in two lists": (
        lambda f: write_list(f, "val", "c\nb\n"),
        ["error: ImageSets/Segmentation/train.txt and val.txt share 1 id(s): b"],
    ),
    "val.txt empty": (
        lambda f: write_list(f, "val", ""),
        ["error: ImageSets/Segmentation/val.txt lists no image", *note_unlisted("c")],
    ),
}
# what is found of val.txt, by its content or by what is done to it
LISTS = {
    "missing": (Path.unlink, "error: is missing"),
    "a folder": (lambda path: replace(path, Path.mkdir), "error: is not a file"),
    "nowhere": (link_to_nothing, "error: is a link to a file that does not exist"),
    "UTF-16": ("c\n".encode("utf-16"), "error: is not UTF-8 text"),
    "Latin-1": (b"c\nm\xe4dchen\n", "error: is not UTF-8 text"),
    "zero byte": (b"c\nc\0\n", r"error: has the id 'c\x00', which has characters that cannot be seen"),
    "bell": (b"c\nc\x07\n", r"error: has the id 'c\x07', which has characters that cannot be seen"),
    "absolute": (b"c\n/etc/c\n", "error: has the id '/etc/c', which is an absolute path"),
    "with a drive": (b"c\nC:\\c\n", "error: has the id 'C:\\c', which is an absolute path"),
    "of another folder": (b"c\n../c\n", "error: has the id '../c', which leads to another folder"),
    "two dots": (b"c\n..\n", "error: has the id '..', which leads to another folder"),
    "of a sub-folder": (b"c\n2007/c\n", "error: has the id '2007/c', which is a path"),
    "with extension": (b"c\nc.JPG\n", "error: has the id 'c.JPG', which has an extension"),
    "too long": (b"c\n" + b"c" * 300, f"error: has the id '{'c' * 60}...', which is too long"),
    "byte-order mark": (b"\xef\xbb\xbfc\n", "note: begins with a byte-order mark"),
    "CRLF": (b"c\r\n", "note: has CRLF line ends"),
    "blank lines": (b"\nc\n\n", "note: has blank lines"),
    "spaces": (b" c\n", "note: has spaces around ids"),
}
# what is found of b's photograph, by what is done to it
PHOTOGRAPHS = {
    "missing": (Path.unlink, "error: is missing"),
    "nowhere": (link_to_nothing, "error: is a link to a file that does not exist"),
    "a folder": (lambda path: replace(path, Path.mkdir), "error: is not a file"),
    "a pipe": (lambda path: replace(path, os.mkfifo), "error: is not a file"),
    "cut": (cut, "error: is not a complete JPEG file (image file is truncated"),
    "empty": (lambda path: path.write_bytes(b""), "error: is not a complete JPEG file (it begins otherwise)"),
    "PNG": (lambda path: draw(path, kind="PNG"), "error: is not a complete JPEG file (it begins otherwise)"),
    "16 bits": (lambda path: draw(path, "I;16", "PNG"), "error: is not a complete JPEG file (it begins otherwise)"),
    "web page": (lambda path: path.write_text("<html>404"), "error: is not a complete JPEG file (it begins otherwise)"),
    "CMYK": (lambda path: draw(path, "CMYK"), "error: has CMYK colours"),
    "grey": (lambda path: draw(path, "L"), "note: is greyscale"),
    "turned": (draw_turned, "error: is turned or mirrored by its EXIF orientation, 6"),
}
# what is found of either of b's masks
MASKS = {
    "missing": (Path.unlink, "error: is missing"),
    "cut": (cut, "error: is not a complete PNG file"),
    "JPEG": (lambda path: draw(path, "L"), "error: is not a complete PNG file (it begins otherwise)"),
    "RGB": (lambda path: Image.fromarray(voc.colorize(LABELS)).save(path), "error: is a PNG of mode RGB"),
    "RGBA": (lambda path: draw(path, "RGBA", "PNG"), "error: is a PNG of mode RGBA"),
    "16 bits": (lambda path: draw(path, "I;16", "PNG"), "error: is a PNG of mode I;16"),
    "1 bit": (lambda path: draw(path, "1", "PNG"), "error: is a PNG of mode 1,"),
    "low": (lambda path: voc.save_mask(path, LABELS[1:]), "error: is 30 x 19 pixels, its photograph 30 x 20"),
    "turned": (lambda path: voc.save_mask(path, LABELS.T), "error: is 20 x 30 pixels, its photograph 30 x 20"),
}
# what is found of b's masks, by their labels and instances; car 2 has rows 10-17 and columns 20-29
OBJECTS = {
    "values": (
        changed(LABELS, 0, [0, 1], (21, 254)), INSTANCES,
        "error: SegmentationClass/b.png has class values outside 0-20 and 255: 21, 254 (2 pixels)",
    ),
    "instance without class": (
        np.where(LABELS == 7, 0, LABELS), INSTANCES,
        "error: SegmentationObject/b.png has instance 2 without a class: no pixel of it has one in Segm",
    ),
    "instance without area": (
        np.where(LABELS == 7, voc.VOID, LABELS), INSTANCES,
        "error: SegmentationObject/b.png has instance 2 without an area: SegmentationClass/b.png is void at all",
    ),
    "instance of two classes": (
        changed(LABELS, slice(14, 18), slice(20, 30), 6), INSTANCES,
        "error: SegmentationObject/b.png has instance 2 over several classes: bus (40 pixels), car (40 pixels)",
    ),
    "instance with a seam": (
        changed(LABELS, 10, slice(20, 23), 9), INSTANCES,
        "note: SegmentationObject/b.png has instance 2 over several classes: car (77 pixels), chair (3 pixels)",
    ),
    "class without instance": (
        LABELS, np.where(INSTANCES == 2, 0, INSTANCES),
        "error: SegmentationObject/b.png has no instance at 80 of the 80 pixels of class 7, car",
    ),
    "half an instance": (
        LABELS, changed(INSTANCES, slice(14, 18), slice(20, 30), voc.VOID),
        "note: SegmentationObject/b.png has no instance at 40 of the 80 pixels of class 7, car",
    ),
    "void": (
        np.full_like(LABELS, voc.VOID), np.full_like(LABELS, voc.VOID),
        "note: SegmentationClass/b.png is void throughout",
    ),
}  # fmt: skip


def is_found(folder, spoil, *expected):
    """Nothing is found in the sound folder; once spoilt, just what is expected: `severity: file problem`, or more."""
    assert validate.check(folder, SPLITS) == []
    spoil()
    found = validate.check(folder, SPLITS)
    said = [f"{one.severity}: {os.path.relpath(one.file, folder)} {one.problem}" for one in found]
    assert len(said) == len(expected), said
    for one, line, words in zip(found, said, expected, strict=True):
        assert line.startswith(words)
        assert one.advice
        assert str(one) in validate.text(folder, found).splitlines() or one.severity == "note"


@pytest.mark.parametrize(("spoil", "expected"), FOLDERS.values(), ids=FOLDERS)
def test_bad_folder(folder, spoil, expected):
    is_found(folder, lambda: spoil(folder), *expected)


@pytest.mark.parametrize(("content", "expected"), LISTS.values(), ids=LISTS)
def test_bad_list(folder, content, expected):
    path = voc.list_path(folder, "val")
    expected = expected.replace(": ", ": ImageSets/Segmentation/val.txt ", 1)
    is_found(folder, lambda: path.write_bytes(content) if isinstance(content, bytes) else content(path), expected)


@pytest.mark.parametrize(("spoil", "expected"), PHOTOGRAPHS.values(), ids=PHOTOGRAPHS)
def test_bad_photograph(folder, spoil, expected):
    path = voc.image_path(folder, "b")
    is_found(folder, lambda: spoil(path), expected.replace(": ", ": JPEGImages/b.jpg ", 1))


@pytest.mark.parametrize("sub", [voc.LABELS, voc.INSTANCES])
@pytest.mark.parametrize(("spoil", "expected"), MASKS.values(), ids=MASKS)
def test_bad_mask(folder, spoil, expected, sub):
    is_found(folder, lambda: spoil(folder / sub / "b.png"), expected.replace(": ", f": {sub}/b.png ", 1))


@pytest.mark.parametrize(("labels", "instances", "expected"), OBJECTS.values(), ids=OBJECTS)
def test_bad_objects(folder, labels, instances, expected):
    def spoil():
        voc.save_mask(voc.labels_path(folder, "b"), labels)
        voc.save_mask(voc.instances_path(folder, "b"), instances)

    is_found(folder, spoil, expected)


@pytest.mark.parametrize("limit", [500, 250])
def test_pictures_too_large_for_memory(folder, monkeypatch, limit):
    """They have 600 pixels each: above the limit PIL warns, above twice the limit it raises."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    write_list(folder, "train", "a\n")
    found = [one for one in validate.check(folder, ["train"]) if one.severity == "error"]
    assert [os.path.relpath(one.file, folder) for one in found] == [
        "JPEGImages/a.jpg", "SegmentationClass/a.png", "SegmentationObject/a.png",
    ]  # fmt: skip
    assert {one.problem for one in found} == {"has more than 0 million pixels"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permissions(folder):
    voc.image_path(folder, "a").chmod(0)
    (folder / voc.LABELS).chmod(0)
    found = validate.check(folder, SPLITS)
    (folder / voc.LABELS).chmod(0o755)
    assert [one.problem for one in found] == ["cannot be read (Permission denied)"] * 2


def test_broken_metadata_turn_nothing(folder):
    draw(voc.image_path(folder, "a"), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert validate.check(folder, SPLITS) == []


def test_all_is_found_at_once_and_alike_on_all_cores(folder, monkeypatch):
    cut(voc.image_path(folder, "a"))
    voc.save_mask(voc.labels_path(folder, "b"), np.where(LABELS == 7, 0, LABELS))
    voc.labels_path(folder, "c").unlink()
    write_list(folder, "val", "c\r\nb\r\n../c\r\n")
    alone = validate.check(folder, SPLITS)
    assert [one.file.rsplit("/", 2)[-2:] for one in alone] == [
        ["Segmentation", "val.txt"],  # CRLF
        ["Segmentation", "val.txt"],  # ../c
        ["Segmentation", "train.txt"],  # b is in both
        ["JPEGImages", "a.jpg"],
        ["SegmentationObject", "b.png"],
        ["SegmentationClass", "c.png"],
    ]
    monkeypatch.setattr(validate, "MIN_IMAGES_PER_WORKER", 1)
    monkeypatch.setenv("DECONVNET_CORES", "2")
    assert validate.check(folder, SPLITS) == alone


def run_check(monkeypatch, capsys, folder, *options):
    """Status, and what the command prints on its two outputs."""
    monkeypatch.setattr("sys.argv", ["voc", "check", str(folder), *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(voc.__file__, run_name="__main__")
    return ended.value.code, *capsys.readouterr()


def test_command_line_tells_by_its_status(folder, monkeypatch, capsys):
    write_list(folder, "val", "c\r\n")  # a note
    status, said, _ = run_check(monkeypatch, capsys, folder)
    assert status == 0
    assert said.startswith("note: ")
    assert said.endswith("is sound: no error, 1 note(s).\n")
    write_list(folder, "dev", "b\n")  # an optional list: looked at since it is there
    status, said, _ = run_check(monkeypatch, capsys, folder)
    assert status == 1
    assert "train.txt and dev.txt share 1 id(s): b" in said
    assert said.endswith("cannot be used: 1 error(s), 1 note(s).\n")


def test_command_line_in_json(folder, monkeypatch, capsys):
    assert run_check(monkeypatch, capsys, folder, "--json")[:2] == (0, "[]\n")
    voc.image_path(folder, "a").unlink()
    status, said, progress = run_check(monkeypatch, capsys, folder, "--json")
    assert status == 1
    assert json.loads(said) == [
        {
            "file": str(voc.image_path(folder, "a")),
            "problem": "is missing",
            "advice": "Put it there, or take its id out of the lists in ImageSets/Segmentation",
            "severity": "error",
        }
    ]
    assert "3/3" in progress


def test_command_line_on_wrong_settings_of_the_machine(folder, monkeypatch, capsys):
    monkeypatch.setenv("DECONVNET_CORES", "many")
    assert "DECONVNET_CORES must be a whole number" in run_check(monkeypatch, capsys, folder)[0]


def test_command_line_in_a_poor_terminal(tmp_path):
    """A folder whose name is no text, an encoding without the letters of an id, and a reader that goes away."""
    folder = write_folder(tmp_path / os.fsdecode(b"voc\xe9"))
    write_list(folder, "val", "c\nmädchen\n")
    poor = os.environ | {"PYTHONIOENCODING": "ascii:strict", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "deconvnet.data.validate", "check", folder]
    done = subprocess.run(command, env=poor, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert r"voc\udce9/JPEGImages/m\xe4dchen.jpg is missing" in done.stdout
    left = subprocess.run(f"{sys.executable} -m deconvnet.data.validate . | true", shell=True, cwd=folder, env=poor,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (left.stdout, "Error" in left.stderr) == ("", False)


@random_files
@given(
    arrays.arrays(np.uint8, (6, 5), elements=st.sampled_from([0, 1, 2, 20, 21, 255])),
    arrays.arrays(np.uint8, (6, 5), elements=st.sampled_from([0, 1, 2, 254, 255])),
)
def test_random_masks(labels, instances):
    """A mask that check() passes is one that objects() can use; the errors are those of a count pixel by pixel."""
    pairs = list(zip(instances.ravel().tolist(), labels.ravel().tolist(), strict=True))
    numbers = set(instances.ravel().tolist()) - {0, voc.VOID}
    expected = len(
        {label for _, label in pairs if label in range(1, 21)} - {label for n, label in pairs if n in numbers}
    )
    for number in numbers:
        votes = [label for other, label in pairs if other == number and label in range(1, 21)]
        most = max(map(votes.count, votes), default=0)
        expected += len(votes) - most > 0.05 * len(votes) if votes else 1
    if 21 in labels:
        expected = 1  # then the masks are not compared
    with fresh_folder() as folder:
        write_image(folder, "a", labels, instances)
        Image.new("RGB", labels.shape[::-1]).save(voc.image_path(folder, "a"))
        errors = validate.error_messages(folder, ["train"])
        assert len(errors) == expected, errors
        if not errors:
            assert len(voc.objects(folder, ["a"])) == len(numbers)


def refused(read, *arguments):
    """Whether it ends in a UserError; any other exception ends the test."""
    with contextlib.suppress(UserError):
        read(*arguments)
        return False
    return True


def encoded(kind):
    content = io.BytesIO()
    picture = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8) if kind == "JPEG" else LABELS
    Image.fromarray(picture).save(content, kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01")
    return content.getvalue()


@random_files
@given(st.sampled_from(["JPEG", "PNG"]), st.data())
def test_random_damage(kind, data):
    """Bytes of a file are changed or lost: there is a finding for that file, or the file can still be read."""
    content = bytearray(encoded(kind))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))]
    path, read = (voc.image_path, voc.read_image) if kind == "JPEG" else (voc.labels_path, voc.read_labels)
    with fresh_folder() as folder:
        path(folder, "b").write_bytes(content)
        errors = validate.error_messages(folder, ["train"])
        assert all("b.jpg" in error or "b.png" in error for error in errors)
        if refused(read, folder, "b"):
            assert any(error.startswith(str(path(folder, "b"))) for error in errors)


@random_files
@given(
    st.binary(max_size=30)
    | st.text("abc./\\:\r\n\t \0\ufeff\x85é", max_size=30).map(str.encode)
    | st.lists(st.sampled_from([b"a", b"b", b"c", b" a", b"b\r", b"", b"\xef\xbb\xbfc", b"../a"])).map(b"\n".join)
)
@example(b"\xef\xbb\xbf\xef\xbb\xbfa\n")
def test_random_lists(content):
    """Without an error each id of the list has its three files in their three folders."""
    with fresh_folder() as folder:
        voc.list_path(folder, "val").write_bytes(content)
        if not validate.error_messages(folder, ["val"]):
            names = voc.read_list(folder, "val")
            assert names
            assert set(names) <= {"a", "b", "c"}
            assert len(names) == len(set(names))


SETTINGS = yaml.safe_load((ROOT / "params.yaml").read_text())
PLACES = [(section, key) for section, values in SETTINGS.items() if section != "profile" for key in values]
VALUES = st.sampled_from([SETTINGS[section][key] for section, key in PLACES]) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@random_files
@given(st.sampled_from(PLACES), VALUES)
@example(("icons", "train"), 0)
@example(("stage1", "micro_batches"), 10**30)
def test_random_parameters(tmp_path_factory, place, value):
    """Values of any kind: parameters are taken or refused, and read back from a file as they were written."""
    section, key = place
    wrong = SETTINGS | {section: SETTINGS[section] | {key: value}}
    taken = not refused(params.validate, wrong, "params.yaml")
    assert refused(params.validate, wrong | {"unheard-of": value}, "params.yaml")
    assert refused(params.validate, SETTINGS | {section: value}, "params.yaml")
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_text(yaml.safe_dump(wrong))
    if taken:
        assert not refused(params.validate, params.read_yaml(path), "params.yaml")


@random_files
@given(st.lists(st.text("ab: -[]{}#&*!|>'\"%@`\t,?0.", max_size=12) | st.from_regex("[ab]: [0-9ab]*", fullmatch=True)))
def test_random_parameter_files(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_text("\n".join(lines))
    if not refused(params.read_yaml, path):
        assert refused(params.validate, params.read_yaml(path), "params.yaml")  # none is a whole set of parameters


@pytest.mark.parametrize(
    "content", ["a: 2001-99-99", "a: 0x_", "a: !!bool x", "a: !!float ''", "a: !!timestamp x", "[" * 3000, None]
)
def test_odd_parameter_files(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.mkdir() if content is None else path.write_text(content)
    assert refused(params.read_yaml, path)


@pytest.mark.skipif(not SLICE.is_dir(), reason=f"no slice of VOC 2012 at {SLICE}")
def test_real_photographs_are_sound(monkeypatch):
    monkeypatch.setenv("DECONVNET_CORES", "1")
    start = time.monotonic()
    found = validate.check(SLICE, SPLITS)
    assert 472 / (time.monotonic() - start) * 60 > 1000  # images a minute on one core
    assert [len(voc.read_list(SLICE, split)) for split in SPLITS] == [311, 161]
    # masks that were made from boxes leave corners of objects without an instance, the 31 official ones do not
    assert {one.severity for one in found} == {"note"}
    assert all("has no instance at" in one.problem for one in found)
    official = voc.read_list(SLICE, "official_instances")
    assert not {Path(one.file).stem for one in found} & set(official)

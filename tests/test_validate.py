"""Validation of a data folder: defects with their findings, and random files."""

import contextlib
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import hypothesis.configuration
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_voc import INSTANCES, LABELS, write_folder, write_image, write_list

from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.data import checks, validate, voc

SPLITS = ["train", "val"]

# The same examples each time, and no database of them in the project.
hypothesis.configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir(), "hypothesis"))
random_files = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "voc")


@contextlib.contextmanager
def fresh_folder():
    """A valid folder for one random example."""
    with tempfile.TemporaryDirectory() as root:
        yield write_folder(Path(root, "voc"))


def draw(path, mode="RGB", kind="JPEG", **options):
    """A picture of the right size."""
    Image.new(mode, LABELS.shape[::-1]).save(path, kind, **options)


def draw_rotated(path):
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


def break_link(path):
    replace(path, lambda there: there.symlink_to("nowhere"))


def unlisted(sub, *files):
    return f"note: {sub} has {len(files)} file(s) that train, val do not list: {', '.join(files)}"


SUBS = {"JPEGImages": "jpg", "SegmentationClass": "png", "SegmentationObject": "png"}
# A defect of the folder, and all findings.
FOLDERS = {
    "missing": (shutil.rmtree, ["error: . is not a folder"]),
    "a file": (lambda f: replace(f, Path.touch), ["error: . is not a folder"]),
    "empty": (
        lambda f: replace(f, Path.mkdir),
        [f"{'note' if sub == voc.INSTANCES else 'error'}: {sub} is missing" for sub in (*SUBS, voc.LISTS)]),
    "no photographs": (lambda f: shutil.rmtree(f / voc.IMAGES), ["error: JPEGImages is missing"]),
    "no lists": (lambda f: shutil.rmtree(f / "ImageSets"), ["error: ImageSets/Segmentation is missing"]),
    "classes a file": (lambda f: replace(f / voc.LABELS, Path.touch), ["error: SegmentationClass is not a folder"]),
    "classes a broken link": (
        lambda f: break_link(f / voc.LABELS), ["error: SegmentationClass is a link to a folder that does not exist"]),
    "classes a link to itself": (
        lambda f: replace(f / voc.LABELS, lambda p: p.symlink_to(p)), ["error: SegmentationClass cannot be read"]),
    "extension in capitals": (lambda f: voc.image_path(f, "b").rename(f / "JPEGImages" / "b.JPG"), []),
    "another extension": (
        lambda f: voc.image_path(f, "b").rename(f / "JPEGImages" / "b.bmp"),
        ["error: JPEGImages/b.jpg is missing"]),
    "no photograph and masks of two sizes": (
        lambda f: (voc.image_path(f, "b").unlink(), voc.save_mask(voc.instances_path(f, "b"), INSTANCES[1:])),
        ["error: JPEGImages/b.jpg is missing",
         "error: SegmentationObject/b.png is 30 x 19 pixels, its class mask 30 x 20"]),
    "picture in train and val": (
        lambda f: shutil.copy(voc.image_path(f, "a"), voc.image_path(f, "c")),
        ["error: JPEGImages/c.jpg is the same picture as a.jpg, which is in train.txt, not in val.txt"]),
    "picture twice in train": (
        lambda f: shutil.copy(voc.image_path(f, "a"), voc.image_path(f, "b")),
        ["note: JPEGImages/b.jpg is the same picture as a.jpg"]),
    "unlisted files": (
        lambda f: [write_image(f, name) for name in "de"],
        [unlisted(sub, f"d.{suffix}", f"e.{suffix}") for sub, suffix in SUBS.items()]),
    "broken EXIF": (lambda f: draw(voc.image_path(f, "a"), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), []),
    "file name not UTF-8": (
        lambda f: (f / voc.LABELS / os.fsdecode(b"caf\xe9.png")).touch(),
        [rf"note: {voc.LABELS}/caf\udce9.png has a name that is not UTF-8", unlisted(voc.LABELS, r"caf\udce9.png")]),
    "file name of two lines": (
        lambda f: (f / voc.IMAGES / "a\nb.jpg").touch(), [unlisted(voc.IMAGES, r"a\nb.jpg")]),
    "id three times": (
        lambda f: write_list(f, "train", "a\nb\na\na\n"), ["error: ImageSets/Segmentation/train.txt lists a 3 times"]),
    "id in two lists": (
        lambda f: write_list(f, "val", "c\nb\n"),
        ["error: ImageSets/Segmentation/train.txt and val.txt share 1 id(s): b"]),
    "empty list": (
        lambda f: write_list(f, "val", ""),
        ["error: ImageSets/Segmentation/val.txt lists no image", *(unlisted(sub, f"c.{SUBS[sub]}") for sub in SUBS)]),
}  # fmt: skip
# A defect of a file, or its content; and the finding.
FILES = {
    "missing": (Path.unlink, "error: is missing"),
    "broken link": (break_link, "error: is a link to a file that does not exist"),
    "folder": (lambda path: replace(path, Path.mkdir), "error: is not a file"),
    "pipe": (lambda path: replace(path, os.mkfifo), "error: is not a file"),
}
LISTS = {
    "UTF-16": ("c\n".encode("utf-16"), "error: is not UTF-8 text"),
    "Latin-1": (b"c\nm\xe4dchen\n", "error: is not UTF-8 text"),
    "zero byte": (b"c\nc\0\n", r"error: has the id 'c\x00', which has characters that cannot be seen"),
    "absolute path": (b"c\n/etc/c\n", "error: has the id '/etc/c', which is an absolute path"),
    "drive": (b"c\nC:\\c\n", "error: has the id 'C:\\c', which is an absolute path"),
    "another folder": (b"c\n../c\n", "error: has the id '../c', which leads to another folder"),
    "sub-folder": (b"c\n2007/c\n", "error: has the id '2007/c', which is a path"),
    "extension": (b"c\nc.JPG\n", "error: has the id 'c.JPG', which has an extension"),
    "long id": (b"c\n" + b"c" * 300, f"error: has the id '{'c' * 60}...', which is too long"),
    "byte-order mark": (b"\xef\xbb\xbfc\n", "note: begins with a byte-order mark"),
    "CRLF": (b"c\r\n", "note: has CRLF line ends"),
    "blank lines": (b"\nc\n\n", "note: has blank lines"),
    "spaces": (b" c\n", "note: has spaces around ids"),
}
PHOTOGRAPHS = {
    "truncated": (cut, "error: is not a complete JPEG file (image file is truncated"),
    "empty": (b"", "error: is not a complete JPEG file (it begins otherwise)"),
    "PNG": (lambda path: draw(path, kind="PNG"), "error: is not a complete JPEG file (it begins otherwise)"),
    "CMYK": (lambda path: draw(path, "CMYK"), "error: has CMYK colours"),
    "greyscale": (lambda path: draw(path, "L"), "note: is greyscale"),
    "EXIF": (draw_rotated, "error: is turned or mirrored by its EXIF orientation, 6"),
}
MASKS = {
    "truncated": (cut, "error: is not a complete PNG file"),
    "JPEG": (lambda path: draw(path, "L"), "error: is not a complete PNG file (it begins otherwise)"),
    "alpha": (lambda path: draw(path, "RGBA", "PNG"), "error: is a PNG of mode RGBA"),
    "grey and alpha": (lambda path: draw(path, "LA", "PNG"), "error: is a PNG of mode LA"),
    "16 bits": (lambda path: draw(path, "I;16", "PNG"), "error: is a PNG of mode I;16"),
    "1 bit": (lambda path: draw(path, "1", "PNG"), "error: is a PNG of mode 1,"),
    "low": (lambda path: voc.save_mask(path, LABELS[1:]), "error: is 30 x 19 pixels, its photograph 30 x 20"),
    "transposed": (lambda path: voc.save_mask(path, LABELS.T), "error: is 20 x 30 pixels, its photograph 30 x 20"),
}
DEFECTS = {
    f"{file} {name}": (file, *defect)
    for file, defects in {
        "ImageSets/Segmentation/val.txt": LISTS,
        "JPEGImages/b.jpg": PHOTOGRAPHS,
        "SegmentationClass/b.png": MASKS,
        "SegmentationObject/b.png": MASKS,
    }.items()
    for name, defect in (FILES | defects).items()
}
# b's labels and instances, and the finding; car 2 has rows 10-17 and columns 20-29.
OBJECTS = {
    "values": (changed(LABELS, 0, [0, 1], (21, 254)), INSTANCES,
        "error: SegmentationClass/b.png has class values outside 0-20 and 255: 21, 254 (2 pixels)"),
    "instance without class": (np.where(LABELS == 7, 0, LABELS), INSTANCES,
        "error: SegmentationObject/b.png has instance 2 without a class: no pixel of it has one in Segm"),
    "instance without area": (np.where(LABELS == 7, voc.VOID, LABELS), INSTANCES,
        "error: SegmentationObject/b.png has instance 2 without an area: SegmentationClass/b.png is void at all"),
    "instance of two classes": (changed(LABELS, slice(14, 18), slice(20, 30), 6), INSTANCES,
        "error: SegmentationObject/b.png has instance 2 over several classes: bus (40 pixels), car (40 pixels)"),
    "instance with a seam": (changed(LABELS, 10, slice(20, 23), 9), INSTANCES,
        "note: SegmentationObject/b.png has instance 2 over several classes: car (77 pixels), chair (3 pixels)"),
    "class without instance": (LABELS, np.where(INSTANCES == 2, 0, INSTANCES),
        "error: SegmentationObject/b.png has no instance at 80 of the 80 pixels of class 7, car"),
    "half an instance": (LABELS, changed(INSTANCES, slice(14, 18), slice(20, 30), voc.VOID),
        "note: SegmentationObject/b.png has no instance at 40 of the 80 pixels of class 7, car"),
    "void": (np.full_like(LABELS, voc.VOID), np.full_like(LABELS, voc.VOID),
        "note: SegmentationClass/b.png is void throughout"),
}  # fmt: skip


def assert_found(folder, spoil, *expected):
    """The valid folder has no findings; once spoilt, exactly these: `severity: file problem`, or its beginning."""
    assert validate.check(folder, SPLITS) == []
    spoil()
    found = validate.check(folder, SPLITS)
    printed = [f"{one.severity}: {os.path.relpath(one.file, folder)} {one.problem}" for one in found]
    assert len(printed) == len(expected), printed
    for one, line, beginning in zip(found, printed, expected, strict=True):
        assert line.startswith(beginning)
        assert one.advice
        assert ("note: " if one.severity == "note" else "") + str(one) in validate.text(folder, found).splitlines()


@pytest.mark.parametrize(("spoil", "expected"), FOLDERS.values(), ids=FOLDERS)
def test_bad_folder(folder, spoil, expected):
    assert_found(folder, lambda: spoil(folder), *expected)


@pytest.mark.parametrize(("file", "defect", "expected"), DEFECTS.values(), ids=DEFECTS)
def test_bad_file(folder, file, defect, expected):
    path, expected = folder / file, expected.replace(":", f": {file}", 1)
    assert_found(folder, lambda: path.write_bytes(defect) if isinstance(defect, bytes) else defect(path), expected)


@pytest.mark.parametrize(("labels", "instances", "expected"), OBJECTS.values(), ids=OBJECTS)
def test_bad_objects(folder, labels, instances, expected):
    def spoil():
        voc.save_mask(voc.labels_path(folder, "b"), labels)
        voc.save_mask(voc.instances_path(folder, "b"), instances)

    assert_found(folder, spoil, expected)


@pytest.mark.parametrize("limit", [500, 250])
def test_pictures_too_large_for_memory(folder, monkeypatch, limit):
    """600 pixels: above the limit PIL warns, above twice the limit it raises."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    found = [one for one in validate.check(folder, ["val"]) if one.severity == "error"]
    assert [one.file for one in found] == [str(folder / sub / f"c.{SUBS[sub]}") for sub in SUBS]
    assert {one.problem for one in found} == {"has more than 0 million pixels"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permissions(folder):
    voc.image_path(folder, "a").chmod(0)
    (folder / voc.LABELS).chmod(0)
    found = validate.check(folder, SPLITS)
    (folder / voc.LABELS).chmod(0o755)
    assert [one.problem for one in found] == ["cannot be read (Permission denied)"] * 2


def test_all_findings_come_at_once_whatever_the_number_of_processes(folder, monkeypatch):
    cut(voc.image_path(folder, "a"))
    voc.save_mask(voc.labels_path(folder, "b"), np.where(LABELS == 7, 0, LABELS))
    voc.labels_path(folder, "c").unlink()
    write_list(folder, "val", "c\r\nb\r\n../c\r\n")
    found = validate.check(folder, SPLITS)
    assert [os.path.relpath(one.file, folder) for one in found] == [
        "ImageSets/Segmentation/val.txt", "ImageSets/Segmentation/val.txt", "ImageSets/Segmentation/train.txt",
        "JPEGImages/a.jpg", "SegmentationObject/b.png", "SegmentationClass/c.png",
    ]  # fmt: skip
    monkeypatch.setattr(validate, "MIN_IMAGES_PER_WORKER", 1)
    monkeypatch.setenv("DECONVNET_CORES", "2")
    assert validate.check(folder, SPLITS) == found


def run_command(monkeypatch, capsys, folder, *options):
    """The status, and what the command prints to its two outputs."""
    monkeypatch.setattr("sys.argv", ["validate", str(folder), *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(validate.__file__, run_name="__main__")
    return ended.value.code, *capsys.readouterr()


def test_the_commands_status_tells_errors_from_notes(folder, monkeypatch, capsys):
    write_list(folder, "val", "c\r\n")  # a note
    status, printed, _ = run_command(monkeypatch, capsys, folder)
    assert status == 0
    assert printed.startswith("note: ")
    assert printed.endswith("is sound: no error, 1 note(s).\n")
    write_list(folder, "dev", "b\n")  # optional, and checked if it exists
    status, printed, _ = run_command(monkeypatch, capsys, folder)
    assert status == 1
    assert "train.txt and dev.txt share 1 id(s): b" in printed
    assert printed.endswith("cannot be used: 1 error(s), 1 note(s).\n")


def test_the_commands_json(folder, monkeypatch, capsys):
    assert run_command(monkeypatch, capsys, folder, "--json")[:2] == (0, "[]\n")
    voc.image_path(folder, "a").unlink()
    status, printed, progress = run_command(monkeypatch, capsys, folder, "--json")
    assert status == 1
    advice = "Put it there, or take its id out of the lists in ImageSets/Segmentation"
    path = str(voc.image_path(folder, "a"))
    assert json.loads(printed) == [{"file": path, "problem": "is missing", "advice": advice, "severity": "error"}]
    assert "3/3" in progress


def test_the_command_with_wrong_settings_of_the_machine(folder, monkeypatch, capsys):
    monkeypatch.setenv("DECONVNET_CORES", "many")
    assert "DECONVNET_CORES must be a whole number" in run_command(monkeypatch, capsys, folder)[0]


def test_the_command_in_an_ascii_terminal(tmp_path):
    """With a folder whose name is not UTF-8, an id that ASCII cannot encode, and a pipe whose reader has ended."""
    folder = write_folder(tmp_path / os.fsdecode(b"voc\xe9"))
    write_list(folder, "val", "c\nmädchen\n")
    run = partial(subprocess.run, capture_output=True, text=True, check=False,
                  env=os.environ | {"PYTHONIOENCODING": "ascii:strict", "PYTHONPATH": str(ROOT / "src")})  # fmt: skip
    done = run([sys.executable, "-m", "deconvnet.data.validate", folder])
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert r"voc\udce9/JPEGImages/m\xe4dchen.jpg is missing" in done.stdout
    done = run(f"{sys.executable} -m deconvnet.data.validate . | true", shell=True, cwd=folder)
    assert (done.stdout, "Error" in done.stderr) == ("", False)


@random_files
@given(
    arrays.arrays(np.uint8, (6, 5), elements=st.sampled_from([0, 1, 2, 20, 21, 255])),
    arrays.arrays(np.uint8, (6, 5), elements=st.sampled_from([0, 1, 2, 254, 255])),
)
def test_random_masks(labels, instances):
    """check() finds as many errors as counting pixel by pixel does, and objects() can use masks without errors."""
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
    """Whether `read` raises UserError. Any other exception fails the test."""
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
    """A file with changed or lost bytes has an error of its own, or can still be read."""
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
    """A list without errors names ids that have files, each once."""
    with fresh_folder() as folder:
        voc.list_path(folder, "val").write_bytes(content)
        if not validate.error_messages(folder, ["val"]):
            names = voc.read_list(folder, "val")
            assert names
            assert set(names) <= {"a", "b", "c"}
            assert len(names) == len(set(names))

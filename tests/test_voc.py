"""The VOC layout: palette and boxes against values worked out by hand, and one test for each kind of problem."""

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deconvnet import voc
from deconvnet.errors import UserError

SLICE = Path(__file__).resolve().parents[2] / "shared" / "voc2012"

LABELS = np.zeros((20, 30), np.uint8)
LABELS[2:8, 3:13] = 15  # a person ...
LABELS[2, 3:13] = voc.VOID  # ... with a void top edge
LABELS[10:18, 20:30] = 7  # a car that touches the right border
INSTANCES = np.zeros((20, 30), np.uint8)
INSTANCES[3:8, 3:13] = 1
INSTANCES[2, 3:13] = voc.VOID
INSTANCES[10:18, 20:30] = 2


def write_image(folder, name, labels=LABELS, instances=INSTANCES):
    pixels = np.random.default_rng(0).integers(0, 256, (*LABELS.shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(voc.image_path(folder, name))
    voc.save_mask(voc.labels_path(folder, name), labels)
    voc.save_mask(voc.instances_path(folder, name), instances)


@pytest.fixture
def folder(tmp_path):
    """A sound folder: a and b to train on, c for validation."""
    root = tmp_path / "voc"
    for sub in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / sub).mkdir(parents=True)
    for name in "abc":
        write_image(root, name)
    write_list(root, "train", "a\nb\n")
    write_list(root, "val", "c\n")
    return root


def write_list(root, split, text):
    (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_bytes(text.encode())


def test_classes_are_vocs():
    assert len(voc.CLASSES) == 21
    assert [voc.CLASSES[i] for i in (0, 1, 15, 20)] == ["background", "aeroplane", "person", "tvmonitor"]


def test_palette_has_vocs_colours():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 255: (224, 224, 192)}
    assert {label: tuple(voc.palette()[label].tolist()) for label in known} == known
    assert voc.palette().shape == (256, 3)
    assert voc.palette().dtype == np.uint8


def test_colours_lead_back_to_the_labels():
    labels = np.array([[*range(21), voc.VOID]])
    colours = voc.colorize(labels)
    assert colours.shape == (1, 22, 3)
    assert colours.dtype == np.uint8
    back = (colours[:, :, None] == voc.palette()).all(axis=-1)
    assert (back.sum(axis=-1) == 1).all()  # no colour occurs twice
    assert (back.argmax(axis=-1) == labels).all()


def test_saved_mask_keeps_indices_and_carries_the_colours(tmp_path):
    voc.save_mask(tmp_path / "m.png", LABELS.astype(np.int64))
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert (np.asarray(image) == LABELS).all()
        assert (np.asarray(image.convert("RGB")) == voc.colorize(LABELS)).all()


def test_readers_give_the_written_arrays(folder):
    assert voc.read_image(folder, "a").shape == (20, 30, 3)
    labels, instances = voc.read_labels(folder, "a"), voc.read_instances(folder, "a")
    assert (labels == LABELS).all()
    assert (instances == INSTANCES).all()
    assert labels.dtype == instances.dtype == np.uint8
    assert labels.flags.writeable


def test_greyscale_photographs_are_read_as_rgb(folder):
    Image.fromarray(LABELS).save(voc.image_path(folder, "a"))
    assert voc.read_image(folder, "a").shape == (20, 30, 3)


@pytest.mark.parametrize("text", ["a\nb\n", "a\nb", "a\r\nb\r\n", "\n a \n\n b\n\n", "\ufeffa\nb\n"])
def test_lists_may_have_other_line_ends_blank_lines_or_a_bom(folder, text):
    write_list(folder, "train", text)
    assert voc.read_list(folder, "train") == ["a", "b"]
    assert voc.check(folder, ["train", "val"]) == []


def test_objects_of_a_drawn_example(folder):
    labels, instances = LABELS.copy(), INSTANCES.copy()
    labels[4:8, 3:13] = voc.VOID  # void has most of the person's pixels, yet no vote
    labels[10, 20:23] = 9  # 3 of the car's 80 pixels
    instances[19, 0] = 40  # one pixel, and a gap in the numbering
    labels[19, 0] = 1
    write_image(folder, "b", labels, instances)
    table = voc.objects(folder, ["c", "b"])
    assert list(table) == ["image", "instance", "label", "x1", "y1", "x2", "y2", "pixels", "width", "height"]
    assert table.values.tolist() == [
        ["c", 1, 15, 3, 3, 13, 8, 50, 30, 20],  # row 2 is void: not part of the box
        ["c", 2, 7, 20, 10, 30, 18, 80, 30, 20],
        ["b", 1, 15, 3, 3, 13, 8, 50, 30, 20],
        ["b", 2, 7, 20, 10, 30, 18, 80, 30, 20],
        ["b", 40, 1, 0, 19, 1, 20, 1, 30, 20],
    ]


def test_objects_of_an_empty_scene(folder):
    write_image(folder, "a", np.zeros_like(LABELS), np.zeros_like(INSTANCES))
    assert voc.check(folder, ["train", "val"]) == []
    assert len(voc.objects(folder, ["a"])) == 0


def test_objects_refuses_an_instance_without_class(folder):
    write_image(folder, "a", labels=np.zeros_like(LABELS))
    with pytest.raises(UserError, match=r"a\.png.*instance 1 "):
        voc.objects(folder, ["a"])


def test_a_sound_folder_has_no_problem(folder):
    assert voc.check(folder, ["train", "val"]) == []
    voc.require(folder, ["train", "val"])


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def swap_class(path):
    labels = LABELS.copy()
    labels[0, :2] = 21, 254
    voc.save_mask(path, labels)


PROBLEMS = {
    "folder missing": (lambda f: shutil.rmtree(f), ["voc is not a folder"]),
    "no images": (lambda f: shutil.rmtree(f / "JPEGImages"), ["JPEGImages is missing"]),
    "no classes": (lambda f: shutil.rmtree(f / "SegmentationClass"), ["SegmentationClass is missing"]),
    "no instances": (lambda f: shutil.rmtree(f / "SegmentationObject"), ["SegmentationObject is missing"]),
    "no lists": (lambda f: shutil.rmtree(f / "ImageSets"), ["ImageSets/Segmentation is missing"]),
    "list missing": (lambda f: voc.list_path(f, "val").unlink(), ["val.txt is missing"]),
    "list not text": (lambda f: voc.list_path(f, "val").write_bytes(b"\xff\xfea\x00"), ["val.txt is not UTF-8"]),
    "empty split": (lambda f: write_list(f, "val", "\r\n\n"), ["val.txt lists no image"]),
    "duplicate": (lambda f: write_list(f, "train", "a\nb\na\na\n"), ["train.txt lists a 3 times"]),
    "overlap": (lambda f: write_list(f, "val", "c\nb\n"), ["train.txt and val.txt share 1 id(s): b."]),
    "absolute id": (lambda f: write_list(f, "val", "c\n/etc/c\n"), ["val.txt has the id '/etc/c'"]),
    "drive id": (lambda f: write_list(f, "val", "c\nC:\\c\n"), ["val.txt has the id 'C:"]),
    "id with ..": (lambda f: write_list(f, "val", "c\n../c\n"), ["val.txt has the id '../c'"]),
    "image missing": (lambda f: voc.image_path(f, "a").unlink(), ["a.jpg is missing"]),
    "class mask missing": (lambda f: voc.labels_path(f, "a").unlink(), ["SegmentationClass/a.png is missing"]),
    "instances missing": (lambda f: voc.instances_path(f, "a").unlink(), ["SegmentationObject/a.png is missing"]),
    "image truncated": (lambda f: truncate(voc.image_path(f, "b")), ["b.jpg is not a complete JPEG"]),
    "image empty": (lambda f: voc.image_path(f, "b").write_bytes(b""), ["b.jpg is not a complete JPEG"]),
    "image is a PNG": (
        lambda f: Image.new("RGB", (30, 20)).save(voc.image_path(f, "b"), "PNG"),
        ["b.jpg is not a complete JPEG"],
    ),
    "mask truncated": (lambda f: truncate(voc.labels_path(f, "b")), ["Class/b.png is not a complete PNG"]),
    "class mask in RGB": (
        lambda f: Image.fromarray(voc.colorize(LABELS)).save(voc.labels_path(f, "b")),
        ["Class/b.png is a PNG of mode RGB"],
    ),
    "instances in RGB": (
        lambda f: Image.fromarray(voc.colorize(INSTANCES)).save(voc.instances_path(f, "b")),
        ["Object/b.png is a PNG of mode RGB"],
    ),
    "class value": (lambda f: swap_class(voc.labels_path(f, "b")), ["b.png has class values outside 0-20", "21, 254"]),
    "class mask size": (
        lambda f: voc.save_mask(voc.labels_path(f, "b"), LABELS[1:]),
        ["Class/b.png is 30 x 19 pixels, its image 30 x 20"],
    ),
    "instances size": (
        lambda f: voc.save_mask(voc.instances_path(f, "b"), INSTANCES[:, 1:]),
        ["Object/b.png is 29 x 20 pixels, its image 30 x 20"],
    ),
    "instance without class": (
        lambda f: voc.save_mask(voc.labels_path(f, "b"), np.where(LABELS == 7, 0, LABELS)),
        ["Object/b.png: instance 2 has no pixel with a class"],
    ),
}


@pytest.mark.parametrize(("spoil", "words"), PROBLEMS.values(), ids=PROBLEMS)
def test_check_finds(folder, spoil, words):
    spoil(folder)
    problems = voc.check(folder, ["train", "val"])
    assert len(problems) == 1, problems
    assert str(folder) in problems[0]
    for word in words:
        assert word in problems[0]


def test_check_finds_all_problems_and_require_names_the_first_ten(folder):
    write_list(folder, "val", "c\n" + "".join(f"gone{i}\n" for i in range(4)))
    voc.labels_path(folder, "a").unlink()
    truncate(voc.image_path(folder, "b"))
    problems = voc.check(folder, ["train", "val"])
    assert len(problems) == 1 + 1 + 4 * 3  # each missing id lacks its image and both masks
    with pytest.raises(UserError, match=r"14 problem\(s\)") as caught:
        voc.require(folder, ["train", "val"])
    assert [problem in str(caught.value) for problem in problems] == [True] * 10 + [False] * 4
    assert "and 4 more" in str(caught.value)


def test_command_line_tells_by_its_status(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["voc", "check", str(folder)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(voc.__file__, run_name="__main__")
    assert ended.value.code == 0
    assert "is sound" in capsys.readouterr().out
    write_list(folder, "dev", "b\n")  # an optional list: looked at since it is there
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(voc.__file__, run_name="__main__")
    assert ended.value.code == 1
    assert "train.txt and dev.txt share 1 id(s): b" in capsys.readouterr().out


@pytest.mark.skipif(not SLICE.is_dir(), reason=f"no slice of VOC 2012 at {SLICE}")
def test_real_photographs_are_sound():
    assert voc.check(SLICE, ["train", "val"]) == []
    assert [len(voc.read_list(SLICE, split)) for split in ("train", "val")] == [311, 161]

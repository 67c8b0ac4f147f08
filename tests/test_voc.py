"""The VOC layout: palette and boxes worked out by hand, and errors of invalid folders."""

import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision.models.segmentation import FCN_ResNet50_Weights

from deconvnet.config.errors import UserError
from deconvnet.data import classes, reading, validate, voc

LABELS = np.zeros((20, 30), np.uint8)
LABELS[2:8, 3:13] = 15  # a person ...
LABELS[2, 3:13] = voc.VOID  # ... with a void top edge
LABELS[10:18, 20:30] = 7  # a car that touches the right border
INSTANCES = np.zeros((20, 30), np.uint8)
INSTANCES[3:8, 3:13] = 1
INSTANCES[2, 3:13] = voc.VOID
INSTANCES[10:18, 20:30] = 2


def write_image(folder, name, labels=LABELS, instances=INSTANCES):
    """Three files; photographs of different names are different pictures."""
    pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (*LABELS.shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(voc.image_path(folder, name))
    voc.save_mask(voc.labels_path(folder, name), labels)
    voc.save_mask(voc.instances_path(folder, name), instances)


def write_folder(root):
    """A valid folder: a and b in train, c in val."""
    for sub in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / sub).mkdir(parents=True)
    for name in "abc":
        write_image(root, name)
    write_list(root, "train", "a\nb\n")
    write_list(root, "val", "c\n")
    return root


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "voc")


def write_list(root, split, text):
    (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_bytes(text.encode())


def test_classes_and_palette_are_vocs():
    assert list(classes.VOC_NAMES[1:]) == FCN_ResNet50_Weights.DEFAULT.meta["categories"][1:]
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 255: (224, 224, 192)}
    assert {label: tuple(classes.colour_map()[label].tolist()) for label in known} == known
    assert len(np.unique(classes.colour_map(), axis=0)) == 256


def test_a_saved_mask_has_indices_and_colours(tmp_path):
    voc.save_mask(tmp_path / "m.png", LABELS.astype(np.int64))
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert (np.asarray(image) == LABELS).all()
        colours = np.asarray(image.convert("RGB"))
    assert (colours == voc.colorize(LABELS)).all()


def test_readers_give_the_written_arrays(folder):
    assert voc.read_image(folder, "a").shape == (20, 30, 3)
    labels, instances = voc.read_labels(folder, "a"), voc.read_instances(folder, "a")
    assert (labels == LABELS).all()
    assert (instances == INSTANCES).all()
    assert labels.dtype == instances.dtype == np.uint8
    assert labels.flags.writeable
    Image.fromarray(LABELS).save(voc.image_path(folder, "a"))  # greyscale
    assert voc.read_image(folder, "a").shape == (20, 30, 3)


@pytest.mark.parametrize("text", ["a\nb\n", "a\nb", "a\r\nb\r\n", "\n a \n\n b\n\n", "\ufeffa\nb\n"])
def test_lists_may_have_crlf_blank_lines_spaces_or_a_byte_order_mark(folder, text):
    write_list(folder, "train", text)
    assert voc.read_list(folder, "train") == ["a", "b"]
    assert validate.error_messages(folder, ["train", "val"]) == []


def test_objects_of_a_drawing(folder):
    labels, instances = LABELS.copy(), INSTANCES.copy()
    labels[4:8, 3:13] = voc.VOID  # void is most of the person, and does not vote
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


def test_objects_of_unusual_masks(folder):
    write_image(folder, "a", np.zeros_like(LABELS), np.zeros_like(INSTANCES))
    assert validate.error_messages(folder, ["train", "val"]) == []
    assert len(voc.objects(folder, ["a"])) == 0
    write_image(folder, "a", labels=np.zeros_like(LABELS))
    with pytest.raises(UserError, match=r"a\.png.*instance 1 "):
        voc.objects(folder, ["a"])


def test_require_returns_notes_and_raises_the_first_ten_errors(folder):
    assert validate.require(folder, ["train", "val"]) == []
    write_list(folder, "val", "c\r\n")
    assert [finding.problem for finding in validate.require(folder, ["train", "val"])] == ["has CRLF line ends"]
    write_list(folder, "val", "c\n" + "".join(f"gone{i}\n" for i in range(4)))
    voc.labels_path(folder, "a").unlink()
    voc.image_path(folder, "b").write_bytes(voc.image_path(folder, "b").read_bytes()[:-40])
    problems = validate.error_messages(folder, ["train", "val"])
    assert len(problems) == 1 + 1 + 4 * 3  # each missing id lacks its image and both masks
    with pytest.raises(UserError, match=r"14 problem\(s\)") as caught:
        validate.require(folder, ["train", "val"])
    assert [problem in str(caught.value) for problem in problems] == [True] * 10 + [False] * 4
    assert "and 4 more" in str(caught.value)


def test_errors_can_be_pickled_by_worker_processes():
    failed = pickle.loads(pickle.dumps(reading.FileError("a.jpg", "is missing", "Put it there")))
    assert isinstance(failed, UserError)
    assert (str(failed), failed.file) == ("a.jpg is missing. Put it there.", "a.jpg")


@pytest.mark.parametrize("name", ["../a", "/a", "..", "x/../../a", "C:\\a", "x/a", "a\0", "a" * 300, "\ud800"])
def test_no_id_leads_to_another_folder_or_to_no_file(folder, name):
    for path in (voc.image_path, voc.labels_path, voc.instances_path):
        with pytest.raises(UserError, match=r"No file in .* can have the id"):
            path(folder, name)

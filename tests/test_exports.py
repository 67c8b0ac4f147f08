"""Folders as CVAT and labelme export them, built by hand: what is read, what is imported, and what is refused."""

import itertools
import runpy
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.data import classes, exports, sources, unsplit, validate, voc
from deconvnet.data.reading import FileError
from deconvnet.pipeline import preflight

COLOURS = {0: (0, 0, 0), 1: (250, 50, 83), 2: (250, 50, 84), 255: (224, 224, 192)}  # two classes' are one apart
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:250,50,84::\n"
LABELS = np.zeros((12, 16), np.uint8)
LABELS[1:4, 1:5] = 1  # a cat ...
LABELS[4:6, 5:8] = 1  # ... that goes on across a corner
LABELS[8:11, 1:4] = 1  # another cat
LABELS[8:11, 4:8] = 2  # a dog beside it
LABELS[0] = voc.VOID
COMPONENTS = np.zeros_like(LABELS)
COMPONENTS[1:4, 1:5] = COMPONENTS[4:6, 5:8] = 1
COMPONENTS[8:11, 1:4] = 2
COMPONENTS[8:11, 4:8] = 3
COMPONENTS[0] = voc.VOID
NAMES = [f"p{i:02}" for i in range(12)]


def coloured(labels, colours=COLOURS):
    return Image.fromarray(np.array([colours.get(i, (0, 0, 0)) for i in range(256)], np.uint8)[labels])


def photograph(name):
    return Image.fromarray(np.random.default_rng([*name.encode()]).integers(0, 256, (12, 16, 3), dtype=np.uint8))


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def write_text(folder, name, text):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def make_cvat(folder):
    """Colour masks, instances in VOC's colours, one list; p00 is listed, and was never annotated."""
    write_text(folder, "labelmap.txt", LABELMAP)
    write_text(folder, "ImageSets/Segmentation/default.txt", "\n".join(NAMES))
    for name in NAMES:
        save(folder / "JPEGImages" / f"{name}.jpg", photograph(name))
        if name != "p00":
            save(folder / "SegmentationClass" / f"{name}.png", coloured(LABELS))
            instances = dict(enumerate(classes.MAP)) | {255: (224, 224, 192)}
            save(folder / "SegmentationObject" / f"{name}.png", coloured(COMPONENTS, instances))
    return folder


def make_labelme(folder, masks=True):
    """Arrays with -1 for void, with `masks` also index masks in a folder beside; no instances and no lists."""
    write_text(folder, "class_names.txt", "_background_\ncat\ndog")
    for name in NAMES:
        save(folder / "JPEGImages" / f"{name}.jpg", photograph(name))
        (folder / "SegmentationClass").mkdir(exist_ok=True)
        np.save(folder / "SegmentationClass" / f"{name}.npy", np.where(LABELS == 255, -1, LABELS.astype(int)))
        if masks:
            mask = Image.fromarray(LABELS)
            mask.putpalette(classes.colour_map().tobytes())
            save(folder / "SegmentationClassPNG" / f"{name}.png", mask)
    return folder


MAKE = {"cvat": make_cvat, "labelme": make_labelme, "labelme's arrays": partial(make_labelme, masks=False)}


@pytest.fixture
def cvat(tmp_path):
    return make_cvat(tmp_path / "cvat")


@pytest.fixture(params=list(MAKE)[1:])
def labelme(request, tmp_path):
    return MAKE[request.param](tmp_path / "labelme")


def found(folder):
    return validate.check(folder, validate.given_splits(folder))


def problems(folder):
    return [f"{one.file.removeprefix(f'{folder}/')} {one.problem}" for one in found(folder) if one.severity == "error"]


def test_cvat_is_sound_and_its_colours_are_exact(cvat):
    assert [(one.severity, one.problem) for one in found(cvat)] == [
        ("note", "lists 1 image(s) without a class mask: p00"),
        ("note", "has 1 file(s) that default do not list: p00.jpg"),
    ]
    assert (voc.read_labels(cvat, "p01") == LABELS).all()
    assert (voc.read_instances(cvat, "p01")[1:] == COMPONENTS[1:]).all()
    assert voc.components_note(cvat) == ""


def test_labelme_is_sound_and_its_objects_are_connected_components(labelme):
    assert [(one.severity, one.problem) for one in found(labelme)] == [("note", "is missing")]
    assert (voc.read_labels(labelme, "p01") == LABELS).all()
    assert (voc.read_instances(labelme, "p01") == COMPONENTS).all()
    assert "connected components" in voc.components_note(labelme)


@pytest.mark.parametrize("tool", MAKE)
def test_an_import_is_in_vocs_layout_and_says_what_it_did(tool, tmp_path, capsys):
    folder, out = MAKE[tool](tmp_path / tool), tmp_path / "voc"
    jpeg, turned = folder / "JPEGImages" / "p03.jpg", folder / "JPEGImages" / "p04.jpg"
    photograph("p03").save(jpeg.with_suffix(".PNG"))
    jpeg.unlink()
    turned.rename(turned.with_suffix(".JPEG"))
    sources.import_folder(folder, out, dev=1, seed=3)
    said = capsys.readouterr().out
    assert "3 classes by" in said
    assert "split by seed 3 (data.seed)" in said
    assert ": background, cat, dog." in said
    assert "photographs are PNG: they are stored as JPEG of quality 95" in said
    assert ("connected components" in said) == (tool != "cvat") == bool(voc.components_note(out))
    lists = {split: voc.read_list(out, split) for split in voc.SPLITS}
    names = NAMES[tool == "cvat" :]
    assert {split: len(ids) for split, ids in lists.items()} == {"train": len(names) - 5, "dev": 2, "val": 3}
    assert sorted(itertools.chain(*lists.values())) == names
    assert validate.require(out, voc.SPLITS) == []
    assert classes.read(out).names == ("background", "cat", "dog")
    for name in names:
        with Image.open(out / "SegmentationClass" / f"{name}.png") as mask:
            assert (np.array(mask) == LABELS).all()
        assert (voc.read_instances(out, name)[1:] == COMPONENTS[1:]).all()
        with Image.open(out / "JPEGImages" / f"{name}.jpg") as image:
            assert image.format == "JPEG"
    if tool == "cvat":
        with Image.open(out / "SegmentationClass" / "p01.png") as mask:
            assert mask.convert("RGB").getpixel((5, 9)) == COLOURS[2]
    objects = voc.objects(out, ["p01"])
    assert objects["label"].tolist() == [1, 1, 2]


def test_a_split_depends_on_the_seed_and_the_ids_alone(cvat):
    first = unsplit.split(cvat, 0)
    write_text(cvat, "ImageSets/Segmentation/default.txt", "\n".join(reversed(NAMES)))
    assert unsplit.split(cvat, 0) == first
    assert len({str(unsplit.split(cvat, seed)) for seed in range(5)}) == 5


def test_lists_of_the_folder_are_kept(cvat):
    write_text(cvat, "ImageSets/Segmentation/train.txt", "p01\np02\n")
    write_text(cvat, "ImageSets/Segmentation/val.txt", "p03\n")
    splits = sources.split_folder(cvat, dev=1, seed=0)
    assert (sorted(splits["train"] + splits["dev"]), splits["val"]) == (["p01", "p02"], ["p03"])


def test_two_images_cannot_be_split(cvat):
    write_text(cvat, "ImageSets/Segmentation/default.txt", "p00\np01\np02\n")
    assert problems(cvat) == [f"{cvat} has 2 image(s) with a class mask"]
    with pytest.raises(UserError, match=r"2 image\(s\) with a (class )?mask"):
        sources.split_folder(cvat, dev=1, seed=0)


def repaint(path, rows, colour):
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[rows] = colour
    Image.fromarray(pixels).save(path)


def specks(path):
    labels = np.zeros((32, 32), np.uint8)
    labels[::2, ::2] = 1  # 256
    coloured(labels).save(path)


def test_every_defect_of_an_export_is_found_in_one_pass(cvat):
    """A mask each, and the folder without instances."""
    masks = cvat / "SegmentationClass"
    repaint(masks / "p01.png", (slice(5, 6), slice(0, 3)), (250, 50, 82))
    repaint(masks / "p01.png", (slice(6, 7), slice(0, 2)), (1, 2, 3))
    specks(masks / "p02.png")
    photograph("other").resize((32, 32)).save(cvat / "JPEGImages" / "p02.jpg")
    coloured(LABELS).convert("RGBA").save(masks / "p03.png")
    Image.fromarray(LABELS > 0).save(masks / "p04.png")
    Image.fromarray(LABELS.astype(np.uint16)).save(masks / "p05.png")
    Image.fromarray(np.where(LABELS == 2, 3, LABELS).astype(np.uint8)).save(masks / "p06.png")
    coloured(LABELS[1:]).save(masks / "p07.png")
    shutil.rmtree(cvat / "SegmentationObject")
    assert problems(cvat) == [
        "SegmentationClass/p01.png has 2 colour(s) that no class has: 250,50,82 (3 pixels); 1,2,3 (2 pixels)",
        "SegmentationClass/p02.png has 256 objects, more than the 254 that a mask of 8 bits can number",
        "SegmentationClass/p03.png is a PNG of mode RGBA, not a palette, 8-bit greyscale or 8-bit RGB PNG",
        "SegmentationClass/p04.png is a PNG of mode 1, not a palette, 8-bit greyscale or 8-bit RGB PNG",
        "SegmentationClass/p05.png is a PNG of mode I;16, not a palette, 8-bit greyscale or 8-bit RGB PNG",
        "SegmentationClass/p06.png has class values outside 0-2 and 255: 3 (12 pixels)",
        "SegmentationClass/p07.png is 16 x 11 pixels, its photograph 16 x 12",
    ]


def test_a_wrong_class_list_is_one_finding_and_hides_no_other(cvat):
    write_text(cvat, "labelmap.txt", LABELMAP + "background:9,9,9::\n")
    coloured(LABELS[1:]).save(cvat / "SegmentationClass" / "p07.png")
    assert problems(cvat) == [
        "labelmap.txt names the class background 2 times",
        "SegmentationClass/p07.png is 16 x 11 pixels, its photograph 16 x 12",
    ]


def test_a_class_that_no_mask_has_is_noted(cvat):
    write_text(cvat, "labelmap.txt", LABELMAP + "bird:9,9,9::\n")
    assert "has 1 class(es) that no mask has: bird" in [one.problem for one in found(cvat)]


def test_the_same_picture_twice_is_an_error_before_a_split(cvat):
    photograph("p01").save(cvat / "JPEGImages" / "p02.jpg")
    assert problems(cvat) == [
        "JPEGImages/p02.jpg is the same picture as p01.jpg, which a split may put into another list"
    ]


def test_indices_need_a_list_in_their_order():
    own = classes.Classes(("background", "cat"), ((0, 0, 0), (1, 2, 3)), moved=True)
    with pytest.raises(FileError, match="which class is 1 is not said"):
        exports.labels_of("m.png", np.zeros((1, 1), np.uint8), own)


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros(4, int), np.full((2, 2), -2), np.full((2, 2), 256)])
def test_arrays_that_are_no_masks(tmp_path, array):
    np.save(tmp_path / "m.npy", array)
    with pytest.raises(FileError, match="is an array of"):
        exports.read(tmp_path / "m.npy", "")


def test_what_the_data_stage_depends_on(cvat, tmp_path):
    """The class list, and the photograph and both masks of each annotated image."""
    settings = params.merge(preflight.settings_of("voc", cvat), {"data": {"dev": 1}})
    checked, out = preflight.check(settings), tmp_path / "source.json"
    preflight.list_source(checked, out)
    before = out.read_text()
    assert f'"count": {1 + 3 * 11}' in before
    write_text(cvat, "labelmap.txt", LABELMAP.replace("dog", "big dog"))
    preflight.list_source(checked, out)
    assert out.read_text() != before


def test_the_command_accepts_an_export(cvat, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["validate", str(cvat)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(validate.__file__, run_name="__main__")
    assert ended.value.code == 0
    assert "is sound: no error, 2 note(s)." in capsys.readouterr().out

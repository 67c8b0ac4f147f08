"""The icon scenes: deterministic, consistent as VOC masks, and colour says nothing about the class."""

import cv2
import numpy as np
import pytest
from fonticon_mdi7 import MDI7
from PIL import Image, ImageFont

from deconvnet.data import icon_scenes, icon_shapes
from deconvnet.data.voc import CLASSES, VOID

SAMPLE = 80


@pytest.fixture(scope="module")
def scenes():
    return [icon_scenes.scene(np.random.default_rng([7, index]), 160, 120) for index in range(SAMPLE)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("icons")
    icon_scenes.generate(path, train=4, dev=2, val=3, width=96, height=80)
    return path


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_same_arguments_give_the_same_bytes(folder, tmp_path):
    icon_scenes.generate(tmp_path, train=4, dev=2, val=3, width=96, height=80)
    assert contents(tmp_path) == contents(folder)


def test_another_seed_gives_other_scenes(folder, tmp_path):
    icon_scenes.generate(tmp_path, train=1, dev=0, val=0, width=96, height=80, seed=1)
    name = "JPEGImages/train_00000.jpg"
    assert (tmp_path / name).read_bytes() != (folder / name).read_bytes()


def test_a_scene_depends_on_no_split_size(folder, tmp_path):
    icon_scenes.generate(tmp_path, train=1, dev=5, val=1, width=96, height=80)
    few, many = contents(tmp_path), contents(folder)
    shared = [name for name in few if name in many and name.suffix != ".txt"]
    assert len(shared) == 3 * (1 + 2 + 1)
    assert all(few[name] == many[name] for name in shared)


def test_splits_differ(folder):
    first = {(folder / f"JPEGImages/{split}_00000.jpg").read_bytes() for split in ("train", "dev", "val")}
    assert len(first) == 3


def test_files_follow_the_voc_layout(folder):
    for split, count in (("train", 4), ("dev", 2), ("val", 3)):
        names = (folder / f"ImageSets/Segmentation/{split}.txt").read_text().split()
        assert names == [f"{split}_{index:05d}" for index in range(count)]
        for name in names:
            with Image.open(folder / f"JPEGImages/{name}.jpg") as image:
                assert image.size == (96, 80)
            for kind in ("SegmentationClass", "SegmentationObject"):
                with Image.open(folder / f"{kind}/{name}.png") as mask:
                    assert mask.mode == "P"
                    assert mask.size == (96, 80)
                    assert mask.getpalette()[3:6] == [128, 0, 0]


def test_every_class_has_glyphs_in_the_font():
    assert tuple(icon_shapes.GLYPHS) == CLASSES[1:]
    font = ImageFont.truetype(MDI7.__font_file__, 64)
    missing = bytes(font.getmask("\U0010ffff"))
    names = [name for glyphs in icon_shapes.GLYPHS.values() for name in glyphs]
    assert len(set(names)) == len(names)
    assert not set(names) & set(icon_shapes.DISTRACTORS)
    for name in [*names, *icon_shapes.DISTRACTORS]:
        assert bytes(font.getmask(getattr(MDI7, name).split(".")[1])) != missing, name
        ink, filled = icon_shapes.glyph(name)
        assert filled.any()
        assert (filled >= ink).all(), name


def test_silhouettes_have_no_holes():
    for name in ("bus_side", "cat", "television"):
        ink, filled = icon_shapes.glyph(name)
        holes = cv2.findContours((filled > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[1]
        assert (holes[0, :, 3] == -1).all(), name
        assert (filled > 127).sum() > 1.05 * (ink > 127).sum(), name


def test_masks_are_consistent(scenes):
    for image, labels, instances in scenes:
        assert image.shape == (120, 160, 3)
        assert image.dtype == labels.dtype == instances.dtype == np.uint8
        assert set(np.unique(labels)) <= {*range(21), VOID}
        assert ((labels == VOID) == (instances == VOID)).all()
        assert ((labels == 0) == (instances == 0)).all()
        for instance in set(np.unique(instances)) - {0, VOID}:
            assert len(np.unique(labels[instances == instance])) == 1


def test_every_contour_is_void(scenes):
    for _, _, instances in scenes:
        for one, other in ((instances[1:], instances[:-1]), (instances[:, 1:], instances[:, :-1])):
            assert ((one == other) | (one == VOID) | (other == VOID)).all()


def test_every_class_occurs_and_every_scene_has_an_object(scenes):
    present = [set(np.unique(labels)) - {0, VOID} for _, labels, _ in scenes]
    assert all(present)
    assert set.union(*present) == set(range(1, 21))


def test_object_colour_says_nothing_about_the_class(scenes):
    """The share of the objects' colour variance that lies between classes is what shuffled classes give."""
    colours, kinds = [], []
    for image, labels, instances in scenes:
        for instance in set(np.unique(instances)) - {0, VOID}:
            colours.append(image[instances == instance].mean(axis=0))
            kinds.append(labels[instances == instance][0])
    colours, kinds = np.array(colours), np.array(kinds)

    def between(kinds):
        means = {kind: colours[kinds == kind].mean(axis=0) for kind in np.unique(kinds)}
        return np.var([means[kind] for kind in kinds], axis=0).sum()

    rng = np.random.default_rng(0)
    shuffled = [between(rng.permutation(kinds)) for _ in range(200)]
    # Objects of one scene share its palette and often a class, hence the slack; one colour a class would give 4 times.
    assert between(kinds) < 2 * np.mean(shuffled)

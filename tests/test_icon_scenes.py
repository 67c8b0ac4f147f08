"""Icon scenes: deterministic, with consistent VOC masks, and colours that are independent of the class."""

import cv2
import numpy as np
import pytest
from fonticon_mdi7 import MDI7
from PIL import ImageFont

from deconvnet.data import icon_scenes, icon_shapes, validate, voc
from deconvnet.data.classes import VOC_NAMES
from deconvnet.data.voc import SPLITS, VOID


@pytest.fixture(scope="module")
def scenes():
    return [icon_scenes.scene(np.random.default_rng([7, index]), 160, 120) for index in range(80)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("icons")
    icon_scenes.generate(path, train=4, dev=2, val=3, width=96, height=80)
    return path


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_scene_depends_on_its_seed_split_and_number_alone(folder, tmp_path):
    icon_scenes.generate(tmp_path, train=1, dev=5, val=1, width=96, height=80)
    few, many = contents(tmp_path), contents(folder)
    shared = [name for name in few if name in many and name.suffix != ".txt"]
    assert len(shared) == 3 * (1 + 2 + 1)
    assert all(few[name] == many[name] for name in shared)


def test_splits_and_seeds_have_different_scenes(folder, tmp_path):
    icon_scenes.generate(tmp_path, train=1, dev=0, val=0, width=96, height=80, seed=1)
    paths = [folder / f"JPEGImages/{split}_00000.jpg" for split in ("train", "dev", "val")]
    assert len({path.read_bytes() for path in [*paths, tmp_path / "JPEGImages/train_00000.jpg"]}) == 4


def test_files_follow_the_voc_layout(folder):
    assert validate.check(folder, SPLITS) == []
    for split, count in zip(SPLITS, (4, 2, 3), strict=True):
        assert voc.read_list(folder, split) == [f"{split}_{index:05d}" for index in range(count)]
        assert voc.read_image(folder, f"{split}_00000").shape == (80, 96, 3)


def test_every_class_has_glyphs_in_the_font():
    assert tuple(icon_shapes.GLYPHS) == VOC_NAMES[1:]
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


def test_masks_are_consistent_and_every_boundary_is_void(scenes):
    for image, labels, instances in scenes:
        assert image.shape == (120, 160, 3)
        assert image.dtype == labels.dtype == instances.dtype == np.uint8
        assert set(np.unique(labels)) <= {*range(21), VOID}
        assert ((labels == VOID) == (instances == VOID)).all()
        assert ((labels == 0) == (instances == 0)).all()
        for instance in set(np.unique(instances)) - {0, VOID}:
            assert len(np.unique(labels[instances == instance])) == 1
        for one, other in ((instances[1:], instances[:-1]), (instances[:, 1:], instances[:, :-1])):
            assert ((one == other) | (one == VOID) | (other == VOID)).all()


def test_every_class_occurs_and_every_scene_has_an_object(scenes):
    present = [set(np.unique(labels)) - {0, VOID} for _, labels, _ in scenes]
    assert all(present)
    assert set.union(*present) == set(range(1, 21))


def test_colours_are_independent_of_the_class(scenes):
    """The variance of the objects' colours between classes is no larger than between shuffled classes."""
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
    # Objects of a scene share its colours and often a class, hence the factor; one colour per class would give 4.
    assert between(kinds) < 2 * np.mean(shuffled)

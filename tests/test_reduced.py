"""Large photographs of a folder are reduced with their masks; smaller ones are taken over byte by byte."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_validate import random_files

from deconvnet.data import checks, photograph, reduced, sources, validate, voc
from deconvnet.data.photograph import MAX_SIDE_PX
from deconvnet.pipeline import preflight


def write_folder(root, sizes: dict[str, tuple[int, int]]):
    """Ids in train, the last one in val: noise, and a block of class 15 that takes the middle half of each side."""
    for sub in (voc.IMAGES, voc.LABELS, voc.INSTANCES, voc.LISTS):
        (root / sub).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, (width, height) in sizes.items():
        noise = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        noise.resize((width, height)).save(voc.image_path(root, name))
        labels = np.zeros((height, width), np.uint8)
        labels[height // 4 : -height // 4, width // 4 : -width // 4] = 15
        voc.save_mask(voc.labels_path(root, name), labels)
        voc.save_mask(voc.instances_path(root, name), np.where(labels, 3, 0))
    *train, last = sizes
    for split, names in {"train": train, "val": [last]}.items():
        voc.list_path(root, split).write_text("\n".join(names))
    return root


SIZES = {"a": (500, 375), "b": (160, 120), "c": (1200, 900), "d": (500, 500), "e": (40, 501), "f": (2000, 90)}


def test_large_photographs_are_reduced_at_import_and_others_are_the_same_files(tmp_path, capsys):
    root, out = write_folder(tmp_path / "root", SIZES), tmp_path / "out"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    sources.import_folder(root, out, dev=2, seed=0)
    assert "3 of 6 photographs have more than 500 px on their longer side" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    for name, (width, height) in SIZES.items():
        if max(width, height) <= MAX_SIDE_PX:
            for path in (voc.image_path, voc.labels_path, voc.instances_path):
                assert os.path.samefile(path(root, name), path(out, name))
            continue
        expected = photograph.reduce(voc.read_image(root, name))
        image, labels = voc.read_image(out, name), voc.read_labels(out, name)
        assert max(image.shape) == MAX_SIDE_PX
        assert image.shape == expected.shape
        assert np.abs(image.astype(int) - expected).mean() < 2  # JPEG
        assert labels.shape == image.shape[:2]
        assert (voc.read_instances(out, name) == np.where(labels, 3, 0)).all()
        assert (labels == 15).mean() == pytest.approx(0.25, abs=0.05)
    objects = sources.list_objects(out)
    assert (objects[["width", "height"]].max(axis=1) <= MAX_SIDE_PX).all()
    assert validate.error_messages(out, voc.SPLITS) == []


def test_it_is_said_before_anything_is_installed_or_run(tmp_path, capsys):
    small = {name: (500 - n, 20) for n, name in enumerate("abc")}
    for folder, sizes, said in (("large", SIZES, "3 of 6 photographs"), ("small", small, "")):
        settings = preflight.settings_of("voc", write_folder(tmp_path / folder, sizes))
        settings["data"]["dev"] = 1
        preflight.check(settings)
        out = capsys.readouterr().out
        assert said in out
        assert bool(said) == ("photographs" in out)


def test_masks_by_hand():
    """A third of the pixels: the middle one of three is taken."""
    labels = np.zeros((3, 12), np.uint8)
    labels[:] = [0, 0, 0, 7, 7, 255, 0, 9, 0, 4, 20, 4]
    instances = np.zeros((3, 12), np.uint8)
    instances[:] = [0, 0, 0, 1, 1, 255, 0, 2, 0, 8, 8, 8]
    found = reduced.reduce_masks(labels, instances, (1, 4))
    assert [mask.tolist() for mask in found] == [[[0, 7, 9, 20]], [[0, 1, 2, 8]]]


@pytest.mark.parametrize(
    ("labels", "instances", "expected"),
    [
        ([7, 255, 7, 0], [1, 1, 1, 0], [[255, 0], [255, 0]]),  # only void is left of the object
        ([7, 0, 7, 0], [1, 1, 1, 0], [[255, 0], [255, 0]]),  # only background is
        ([7, 7, 0, 7], [1, 1, 0, 0], [[7, 7], [1, 0]]),  # the object is there, and pixels of its class beside it
        ([7, 0, 0, 7], [1, 0, 0, 0], [[0, 255], [0, 0]]),  # those pixels without the object
    ],
)
def test_what_is_no_object_any_more_is_void(labels, instances, expected):
    masks = (np.array([mask], np.uint8).repeat(2, axis=0) for mask in (labels, instances))
    found = reduced.reduce_masks(*masks, (1, 2))  # of each pair of pixels the second
    assert [mask[0].tolist() for mask in found] == expected


@st.composite
def scenes(draw):
    """Masks of many small objects, with void, mixed classes, and classes beside their objects."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 60)), draw(st.integers(MAX_SIDE_PX + 1, 3 * MAX_SIDE_PX))
    labels, instances = np.zeros((2, height, width), np.uint8)
    for instance in range(1, draw(st.integers(1, 60))):
        y, x = rng.integers(height), rng.integers(width)
        box = np.s_[y : y + rng.integers(1, 9), x : x + rng.integers(1, 40)]
        labels[box], instances[box] = rng.integers(1, 21), instance
    for mask, value in ((labels, 255), (instances, 255), (instances, 0), (labels, rng.integers(21))):
        spots = rng.random((height, width)) < draw(st.sampled_from([0, 0.01, 0.3]))
        mask[spots] = value
    return labels, instances


@random_files
@given(scenes())
def test_a_sound_mask_is_reduced_to_a_sound_one(masks):
    def errors(labels, instances):
        found = checks._check_objects("folder", "a", voc.count_pixels(labels, instances))
        return [one for one in found if one.severity == "error"]

    shape = photograph.reduce(masks[0]).shape
    found = reduced.reduce_masks(*masks, shape)
    assert errors(*found) == []
    assert found[0].shape == found[1].shape == shape
    nearest = [np.array(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST)) for mask in masks]
    for mask, before in zip(found, nearest, strict=True):
        assert ((mask == before) | (mask == voc.VOID)).all()  # nothing else changes


@random_files
@given(st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), min_size=1, max_size=4))
def test_the_sentence_counts_what_is_larger(tmp_path_factory, sizes):
    root = tmp_path_factory.mktemp("root")
    (root / voc.IMAGES).mkdir()
    for i, size in enumerate(sizes):
        Image.new("L", size).save(voc.image_path(root, str(i)), quality=1)
    number = sum(max(size) > MAX_SIDE_PX for size in sizes)
    said = reduced.sentence(root, list(map(str, range(len(sizes)))))
    assert (said or "0").startswith(str(number))

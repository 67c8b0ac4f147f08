"""Training examples from a drawn scene: a person and a car that touch, with void at their upper and lower borders."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_validate import random_files

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.data.voc import VOID
from deconvnet.images.batches import Batches
from deconvnet.images.boxes import BOX
from deconvnet.training import data_loading, examples

PERSON, CAR = 15, 7
LABELS = np.zeros((40, 60), np.uint8)
LABELS[8:28, 10:22] = PERSON
LABELS[14:30, 22:50] = CAR
LABELS[7, 10:22] = LABELS[30, 22:50] = VOID
INSTANCES = np.where(LABELS == VOID, VOID, np.select([LABELS == PERSON, LABELS == CAR], [1, 2])).astype(np.uint8)
IMAGE = np.stack([LABELS] * 3, axis=2)  # a picture from which the label can be read
SCENE = {"a": (IMAGE, LABELS, INSTANCES)}
OBJECTS = pd.DataFrame(
    [("a", 1, PERSON, 10, 8, 22, 28), ("a", 2, CAR, 22, 14, 50, 30)], columns=["image", "instance", "label", *BOX]
)


def settings_of(section, departures):
    return getattr(params.validate(params.compose("icons"), "icons"), section).model_copy(update=departures)


def crops(**departures):
    """Settings of a stage, with small batches."""
    small = {"batch_size": 6, "iterations": 5, "seed": 0, "resize_before_crop": None}
    return settings_of("stage1", small | {"context": 1.2, "square_boxes": True, "class_balance": True} | departures)


def classifier(**departures):
    small = {"batch_size": 20, "iterations": 1, "seed": 0, "resize_before_crop": None, "colour_augmentation": False}
    return settings_of("backbone", small | departures)


def values(labels):
    return set(np.unique(labels).tolist())


# Label rules


def test_stage_1_keeps_one_object_and_void():
    only = examples.only_object(LABELS, INSTANCES, 1)
    assert (only[8:28, 10:22] == PERSON).all()
    assert (only == PERSON).sum() == 20 * 12
    assert ((only == VOID) == (LABELS == VOID)).all()
    assert values(only) == {0, PERSON, VOID}
    assert only.dtype == np.uint8


def test_a_batch_of_stage_1_has_the_object_of_the_row_alone():
    table = OBJECTS.query("label == @PERSON")  # its extended box contains a part of the car
    _, labels = examples.crop_batches(SCENE, table, crops(), 24)[0]
    assert (LABELS[6:30, 4:28] == CAR).any()
    assert values(labels) == {0, PERSON, VOID}


def test_a_crop_shows_its_box():
    """12 × 20 px around (16, 18), extended to 24: columns 4–28, rows 6–30."""
    table = OBJECTS.query("label == @PERSON").assign(instance=0)
    images, labels = examples.crop_batches(SCENE, table, crops(batch_size=20), 24)[0]
    expected = torch.from_numpy(LABELS[6:30, 4:28]).long()
    flips = [torch.equal(label, expected.flip(1)) for label in labels]
    assert values(labels) == {0, PERSON, CAR, VOID}  # stage 2 keeps all classes
    assert 0 < sum(flips) < 20
    assert all(flip or torch.equal(label, expected) for flip, label in zip(flips, labels, strict=True))
    assert torch.equal(images, labels[:, None].expand(-1, 3, -1, -1).float())
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)


def test_outside_the_image_crops_are_black_and_void():
    """10 × 10 px at the corner, extended to 20: columns 45–65 and rows 25–45 of an image of 60 × 40."""
    corner = pd.DataFrame([("a", 0, CAR, 50, 30, 60, 40)], columns=["image", "instance", "label", *BOX])
    images, labels = examples.crop_batches(SCENE, corner, crops(context=2.0), 20)[0]
    assert (labels[:, 15:] == VOID).all()
    assert (images[:, :, 15:] == 0).all()
    assert ((labels == VOID).sum(dim=(1, 2)) == 20 * 20 - 15 * 15 + (LABELS[25:, 45:] == VOID).sum()).all()


@pytest.mark.parametrize("resized", [None, 72, 36, 251])
def test_resizing_invents_no_class(resized):
    """Between void (255) and background (0) or a class, interpolation would give other classes."""
    for instance, allowed in ((1, {0, PERSON, VOID}), (0, {0, PERSON, CAR, VOID})):
        table = OBJECTS.query("label == @PERSON").assign(instance=instance)
        solver = crops(resize_before_crop=resized, context=1.9)
        _, labels = examples.crop_batches(SCENE, table, solver, 32)[0]
        assert values(labels) <= allowed
        assert resized == 251 or VOID in values(labels)  # 32 of 251 pixels may miss the void border


def test_backbone_crops_have_the_class_of_their_row():
    images, labels = examples.crop_batches(SCENE, OBJECTS, classifier(), 24)[0]
    assert labels.shape == (20,)
    assert values(labels) == {PERSON, CAR}
    assert [int(i) for i in images[:, 0, 12, 12]] == labels.tolist()  # the object is in the middle


def test_colour_augmentation_permutes_channels_and_inverts():
    """Six orders of the channels, each with its negative. In a batch, some crops are inverted, and no label changes."""
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) ** 2 % 251
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        order, negative = examples.random_colours(rng)
        seen.add((255 - image[..., order] if negative else image[..., order]).tobytes())
    orders = [image[..., list(order)] for order in itertools.permutations(range(3))]
    assert seen == {picture.tobytes() for order in orders for picture in (order, 255 - order)}
    images, labels = examples.crop_batches(SCENE, OBJECTS, classifier(colour_augmentation=True), 24)[0]
    middle = [int(i) for i in images[:, 0, 12, 12]]
    negative = [m != label for m, label in zip(middle, labels.tolist(), strict=True)]
    assert 0 < sum(negative) < 20
    assert all(m == 255 - label for m, label, n in zip(middle, labels.tolist(), negative, strict=True) if n)


# Random crops


def test_a_random_crop_cuts_and_flips_image_and_labels_together():
    labels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    image = np.stack([labels] * 3, axis=2)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        cut, found = examples.random_crop(image, labels, 8, 10, rng)
        assert (cut == found[..., None]).all()
        flipped = found[0, 0] > found[0, 1]
        upright = found[:, ::-1] if flipped else found
        y, x = divmod(int(upright[0, 0]), 10)
        assert (upright == labels[y : y + 8, x : x + 8]).all()
        seen.add((y, x, bool(flipped)))
    assert len(seen) == 3 * 3 * 2  # every position, flipped or not


# Batches


def test_a_batch_is_a_function_of_seed_and_step_alone():
    first, again = (examples.crop_batches(SCENE, OBJECTS, crops(resize_before_crop=32), 24) for _ in range(2))
    late = again[3]
    assert all(torch.equal(a, b) for a, b in zip(first[3], late, strict=True))
    assert not torch.equal(first[2][1], late[1])
    other = examples.crop_batches(SCENE, OBJECTS, crops(resize_before_crop=32, seed=99), 24)
    assert not torch.equal(other[3][1], late[1])


def test_workers_change_neither_the_batches_nor_torchs_random_state(monkeypatch):
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    batches, runs = examples.crop_batches(SCENE, OBJECTS, crops(resize_before_crop=32), 24), []
    for workers in ("0", "2"):
        monkeypatch.setenv("DECONVNET_WORKERS", workers)
        state = torch.get_rng_state()
        runs.append(list(data_loading.loader(batches)))
        assert torch.equal(torch.get_rng_state(), state)
    assert len(runs[0]) == len(runs[1]) == 5
    for batch, other in zip(*runs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))


def test_batches_end():
    batches = examples.crop_batches(SCENE, OBJECTS, crops(), 24)
    assert len(batches) == len(list(batches)) == 5
    with pytest.raises(IndexError):
        batches[5]


def test_resampled_batches_have_other_samples():
    batches = examples.crop_batches(SCENE, OBJECTS, crops(resize_before_crop=32), 24)
    other = batches.resampled(steps=2, batch_size=3)
    assert (len(other), other[0][1].shape[0]) == (2, 3)
    assert (len(batches), batches[0][1].shape[0]) == (5, 6)
    assert not torch.equal(batches.resampled(steps=5, batch_size=6)[0][1], batches[0][1])


@pytest.mark.parametrize(
    ("balance", "share"),
    [(True, np.ones(3)), (False, np.array([100, 10, 1])), (0.5, np.array([100, 10, 1]) ** 0.5)],
    ids=["classes alike", "examples alike", "by the root of the class size"],
)
def test_how_often_classes_of_100_10_and_1_examples_are_sampled(balance, share):
    table = examples.balanced(pd.DataFrame({"label": [1] * 100 + [2] * 10 + [3]}), balance)
    batches = Batches(table, 3000, 1, 0, lambda row, rng: (np.zeros((1, 1, 3)), row.label))
    counts, share = np.bincount(batches[0][1], minlength=4)[1:], share / share.sum()
    assert (np.abs(counts - 3000 * share) < 5 * (3000 * share * (1 - share)) ** 0.5).all()


# Stage 2's table


def proposals(*rows):
    return np.array([(*row, 0.5) for row in rows], np.float32).reshape(-1, 5)


def test_proposals_that_overlap_enough_are_kept_with_the_best_objects_label():
    objects = pd.DataFrame(
        [("a", 1, 5, 0, 0, 10, 10), ("a", 2, 6, 10, 0, 20, 10)], columns=["image", "instance", "label", *BOX]
    )
    found = {
        "a": proposals(
            (0, 0, 10, 5),  # IoU 1/2 with the first
            (0, 0, 10, 4),  # 2/5
            (4, 0, 20, 10),  # 60/200 with the first, 100/160 with the second
            (100, 100, 110, 110),
            (0, 0, 10, 10),
        )
    }
    table = examples.match_proposals(found, objects, 0.5, negatives_among=0)
    assert table[BOX].to_numpy().tolist() == [[0, 0, 10, 5], [4, 0, 20, 10], [0, 0, 10, 10]]
    assert table["label"].tolist() == [5, 6, 5]
    assert table["image"].tolist() == ["a"] * 3
    assert (table["instance"] == 0).all()
    table = examples.match_proposals(found, objects, 0.5, negatives_among=2)  # of the best two, one is negative
    assert table["label"].tolist() == [5, 0, 6, 5]
    assert table[BOX].to_numpy().tolist()[1] == [0, 0, 10, 4]


def test_images_without_matching_proposals_are_left_out():
    objects = pd.DataFrame([(name, 1, 5, 0, 0, 10, 10) for name in "abc"], columns=["image", "instance", "label", *BOX])
    found = {"a": proposals(), "b": proposals((50, 50, 60, 60)), "c": proposals((0, 0, 10, 10))}
    table = examples.match_proposals(found, objects, 0.5, negatives_among=0)
    assert table[["image", "label", "x2"]].to_numpy().tolist() == [["c", 5, 10]]
    assert examples.match_proposals({name: proposals() for name in "abc"}, objects, 0.5, negatives_among=9).empty


@pytest.fixture
def split_with(tmp_path, monkeypatch):
    """A function that makes `train` the scene with these proposals."""
    OBJECTS.assign(split="train").to_csv(tmp_path / "objects.csv", index=False)
    monkeypatch.setattr(examples, "OBJECTS", tmp_path / "objects.csv")
    return lambda *boxes: monkeypatch.setattr(examples, "load_proposals", lambda split: {"a": proposals(*boxes)})


def table_of(number, **departures):
    """The examples of a stage of `train`, with departures from the stage's settings."""
    settings = params.merge(params.compose("icons"), {f"stage{number}": departures})
    return examples.stage_table(number, "train", params.validate(settings, "icons"))


def test_a_split_whose_proposals_all_miss_is_refused(split_with):
    split_with((58, 38, 60, 40))
    with pytest.raises(UserError, match="lower it"):
        table_of(2)
    assert len(table_of(1)) == 2


def test_each_kind_of_example_has_its_share_of_the_samples(split_with):
    """One proposal of the person, two of the car, three negative ones; classes alike among the positive ones."""
    person, car = ((10, 8, 22, 28),), ((22, 14, 50, 30), (23, 14, 50, 30))
    split_with(*person, *car, (0, 0, 5, 5), (50, 0, 60, 5), (0, 35, 5, 40))

    def shares(number, **departures):
        table = table_of(number, **departures)
        assert table["weight"].sum() == pytest.approx(1)
        table["kind"] = np.where(table["instance"] > 0, "object", table["label"].astype(str))
        return table.groupby("kind")["weight"].sum().to_dict()

    expected = {"0": 0.4, str(PERSON): 0.3, str(CAR): 0.3}
    assert shares(2, background_fraction=0.4, class_balance=True) == pytest.approx(expected)
    expected |= {str(PERSON): 0.2, str(CAR): 0.4}
    assert shares(2, background_fraction=0.4, class_balance=False) == pytest.approx(expected)
    assert shares(2, background_fraction=0, class_balance=True) == pytest.approx({"15": 0.5, "7": 0.5})
    assert shares(1, class_balance=True) == pytest.approx({"object": 1})


# Whole images


def test_whole_images_are_padded_right_and_below_to_multiples_of_the_stride():
    """To the largest height and width of the batch, 64 and 60 px. Images are drawn like their labels."""
    tall, padded = np.full((64, 20), 3, np.uint8), {}
    scenes = SCENE | {"b": (np.stack([tall] * 3, axis=2), tall, tall)}
    for name, labels in (("a", LABELS), ("flipped", LABELS[:, ::-1]), ("b", tall)):
        sides = [(0, 64 - side) for side in labels.shape]
        padded[name] = [torch.from_numpy(np.pad(labels, sides, constant_values=fill)).long() for fill in (0, VOID)]
    batches = examples.image_batches(scenes, ["a", "b"], settings_of("fcn", {"batch_size": 40, "seed": 0}), 32)
    found = set()
    for image, labels in zip(*batches[0], strict=True):
        (name,) = [name for name, (_, expected) in padded.items() if torch.equal(labels, expected)]
        assert torch.equal(image.long(), padded[name][0].expand(3, -1, -1))
        found.add(name)
    assert found == {*padded}


@random_files
@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=6), st.sampled_from([8, 32]))
def test_a_batch_is_as_large_as_its_own_images(shapes, stride):
    """Not as the largest height and width of all: a wide and a tall image would make every batch large."""
    masks = {str(i): np.zeros(shape, np.uint8) for i, shape in enumerate(shapes)}
    scenes = {name: (np.stack([mask] * 3, axis=2), mask, mask) for name, mask in masks.items()}
    settings = settings_of("fcn", {"batch_size": 2, "seed": 0, "iterations": 5})
    batches = examples.image_batches(scenes, list(scenes), settings, stride)
    for step in range(5):
        rows, _ = batches.sample(step)
        own = np.array([masks[name].shape for name in rows["image"]])
        images, labels = batches[step]
        assert labels.shape == (2, *(-(-own.max(axis=0) // stride) * stride))
        assert images.shape == (2, 3, *labels.shape[1:])
        assert (labels != VOID).sum(dim=(1, 2)).tolist() == own.prod(axis=1).tolist()

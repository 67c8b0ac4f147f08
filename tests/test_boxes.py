"""Boxes by hand: whole pixels, squares, zero and void outside the image, and no shift when scores are pasted back."""

import numpy as np
import pytest
import torch

from deconvnet.data.voc import VOID
from deconvnet.images import boxes, crops

RELEASE = np.array(  # six published boxes, x1 y1 x2 y2, the last pixel included
    [
        [267, -20, 517, 230],
        [88, -24, 387, 275],
        [34, -116, 542, 392],
        [-30, -92, 548, 486],
        [53, 188, 289, 424],
        [-52, -29, 308, 331],
    ]
)
HANGING = [(-3, 2, 3, 8), (7, 2, 13, 8), (2, -3, 8, 3), (2, 5, 8, 11), (-4, -4, 14, 14), (3, 1, 7, 5)]
SCENE = (3, 8, 10)  # channels, height, width


def positive_map():
    return torch.from_numpy(np.random.default_rng(0).uniform(1, 2, SCENE)).float()


def test_extended_box_by_hand():
    # 10 × 20 around (15, 20): side 1.2 · 20 = 24
    assert boxes.extend([[10, 10, 20, 30]], 1.2, square=True).tolist() == [[3, 8, 27, 32]]
    assert boxes.extend([[10, 10, 20, 30]], 1.2, square=False).tolist() == [[9, 8, 21, 32]]
    assert boxes.extend([[0, 0, 10, 5]], 1.2, square=True).tolist() == [[-1, -4, 11, 8]]  # centre 2.5: half to even


def test_extended_tight_boxes_are_whole_square_and_centred():
    rng = np.random.default_rng(0)
    corner, sides = rng.integers(0, 400, (500, 2)), rng.integers(1, 300, (500, 2))
    tight = np.hstack([corner, corner + sides])
    grown = boxes.extend(tight, 1.2, square=True)
    assert np.issubdtype(grown.dtype, np.integer)
    width, height = (grown[:, 2:] - grown[:, :2]).T
    assert (width == height).all()
    assert (width == np.maximum(np.rint(1.2 * sides.max(axis=1)), 1)).all()
    assert np.abs((grown[:, :2] + grown[:, 2:]) / 2 - (tight[:, :2] + tight[:, 2:]) / 2).max() <= 0.5


def test_the_releases_boxes_have_the_invariants_of_ours():
    """Square, whole, and free to leave the image on either side: what `extend` makes of boxes near a border."""
    half_open = np.add(RELEASE, [0, 0, 1, 1])
    sides = half_open[:, 2:] - half_open[:, :2]
    assert sides[:, 0].tolist() == sides[:, 1].tolist() == [251, 300, 509, 579, 237, 361]
    assert (RELEASE < 0).any()
    assert (RELEASE > 500).any()  # no VOC photograph is wider
    ours = boxes.extend(half_open, 1.0, square=True)
    assert (ours == half_open).all()  # square and whole already, so nothing is clipped or rounded
    assert boxes.extend([[0, 0, 100, 50], [400, 100, 500, 200]], 1.2, True).tolist() == [
        [-10, -35, 110, 85],
        [390, 90, 510, 210],
    ]


def test_extending_no_boxes_gives_none():
    assert boxes.extend(np.zeros((0, 4)), 1.2, True).shape == (0, 4)


def test_a_box_never_shrinks_to_nothing():
    assert boxes.extend([[5, 5, 6, 6]], 0.1, square=False).tolist() == [[5, 5, 6, 6]]


# Cutting


def test_crop_reads_columns_as_x_and_rows_as_y():
    picture = np.arange(20, dtype=np.uint8).reshape(4, 5)
    assert boxes.crop(picture, (1, 2, 4, 4), 0).tolist() == [[11, 12, 13], [16, 17, 18]]


@pytest.mark.parametrize("box", HANGING)
def test_crop_is_zero_or_void_outside(box):
    labels = np.random.default_rng(0).integers(1, 21, (8, 10)).astype(np.uint8)
    image = np.stack([labels] * 3, axis=2)
    x1, y1, x2, y2 = box
    around = np.pad(labels, 20, constant_values=VOID)
    assert (boxes.crop(labels, box, VOID) == around[y1 + 20 : y2 + 20, x1 + 20 : x2 + 20]).all()
    dark = np.pad(image, ((20, 20), (20, 20), (0, 0)))
    assert (boxes.crop(image, box, 0) == dark[y1 + 20 : y2 + 20, x1 + 20 : x2 + 20]).all()


@pytest.mark.parametrize("box", [(-9, 0, -2, 7), (12, 0, 15, 3), (0, -5, 5, -1), (0, 9, 4, 13), (10, 8, 12, 10)])
def test_crop_fully_outside_is_all_void(box):
    cut = boxes.crop(np.ones((8, 10), np.uint8), box, VOID)
    assert cut.shape == (box[3] - box[1], box[2] - box[0])
    assert (cut == VOID).all()


def test_resized_labels_are_neither_mixed_nor_shifted():
    labels = np.array([[3, 7], [VOID, 0]], np.uint8)
    assert (boxes.resize_labels(labels, 6) == np.kron(labels, np.ones((3, 3), np.uint8))).all()
    nine = np.arange(81, dtype=np.uint8).reshape(9, 9)
    assert (boxes.resize_labels(nine, 3) == nine[1::3, 1::3]).all()  # the middle of each third, not its corner


def test_resized_images_and_labels_stay_aligned():
    """A class border stays within half a pixel of the picture's border, for up- and down-scaling."""
    for old, new in ((100, 72), (36, 72), (251, 250)):
        labels = np.zeros((old, old), np.uint8)
        labels[:, old // 3 :] = 1
        image = boxes.resize_image(np.stack([200 * labels] * 3, axis=2), new)[..., 0].astype(float) / 200
        small = boxes.resize_labels(labels, new)
        assert np.abs(image.sum(axis=1) - small.sum(axis=1)).max() <= 0.5 + 0.01


def test_windows_hold_the_boxes_contents():
    image = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    inside, outside = crops.crop_boxes(image, np.array([[2, 1, 6, 5], [8, 6, 12, 10]]), 4)
    assert inside.dtype == torch.float32
    assert (inside.numpy() == image[1:5, 2:6].transpose(2, 0, 1)).all()
    assert (outside[:, :2, :2].numpy() == image[6:, 8:].transpose(2, 0, 1)).all()
    assert outside[:, 2:].sum() == outside[:, :, 2:].sum() == 0


def test_antialiased_windows_average_what_shrinks():
    """A board of single-pixel squares, shrunk to a third: grey with smoothing, squares without."""
    board = np.indices((30, 30)).sum(axis=0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    whole = np.array([[0, 0, 30, 30]])
    smooth = crops.crop_boxes(image, whole, 10, antialias=True)
    assert smooth.shape == (1, 3, 10, 10)
    assert (smooth - 127.5).abs().max() < 30
    assert set(crops.crop_boxes(image, whole, 10).unique().tolist()) == {0, 255}
    grown = [crops.crop_boxes(image, whole, 40, antialias) for antialias in (False, True)]
    torch.testing.assert_close(*grown, atol=1, rtol=0)  # OpenCV rounds to whole values


# Pasting


@pytest.mark.parametrize("box", HANGING)
def test_crop_and_paste_round_trip_is_the_identity_inside(box):
    scene, canvas = positive_map(), torch.zeros(SCENE)
    cut = boxes.crop(scene.permute(1, 2, 0).numpy(), box, 0)
    crops.paste_maximum(canvas, torch.from_numpy(cut).permute(2, 0, 1), np.array(box))
    x1, y1, x2, y2 = np.clip(box, 0, [10, 8, 10, 8])
    expected = torch.zeros(SCENE)
    expected[:, y1:y2, x1:x2] = scene[:, y1:y2, x1:x2]
    assert torch.equal(canvas, expected)


def test_antialiased_scores_are_averaged_where_they_shrink():
    """A peak of one pixel in a quarter: plain sampling at the centres of 4 × 4 cells does not see it."""
    scores = torch.zeros(1, 16, 16)
    scores[0, 4, 4] = 16
    canvases = {}
    for antialias in (False, True):
        canvases[antialias] = torch.zeros(1, 4, 4)
        crops.paste_maximum(canvases[antialias], scores, np.array([0, 0, 4, 4]), antialias)
    assert canvases[False].sum() == 0
    assert canvases[True].sum() == pytest.approx(1, abs=0.15)  # 16 / 4², but for the border


@pytest.mark.parametrize("box", [(-9, 0, -2, 7), (12, 0, 15, 3), (0, 8, 4, 12)])
def test_a_box_outside_changes_nothing(box):
    canvas = torch.zeros(SCENE)
    crops.paste_maximum(canvas, torch.ones(3, 7, 7), np.array(box))
    assert (canvas == 0).all()


def test_negative_scores_never_win_over_the_zero_base():
    canvas = torch.zeros(2, 4, 4)
    scores = torch.stack([torch.full((2, 2), -3.0), torch.tensor([[-1.0, 2], [0, -0.5]])])
    crops.paste_maximum(canvas, scores, np.array([1, 1, 3, 3]))
    expected = torch.zeros(2, 4, 4)
    expected[1, 1, 2] = 2
    assert torch.equal(canvas, expected)


def test_the_larger_of_two_overlapping_windows_wins():
    first, second = torch.tensor([[[1.0, 5], [2, 3]]]), torch.tensor([[[4.0, 9], [1, 6]]])
    canvases = []
    for order in (((first, 0), (second, 1)), ((second, 1), (first, 0))):
        canvas = torch.zeros(1, 2, 3)
        for scores, left in order:
            crops.paste_maximum(canvas, scores, np.array([left, 0, left + 2, 2]))
        canvases.append(canvas.tolist())
    assert canvases[0] == canvases[1] == [[[1, 5, 9], [2, 3, 6]]]


@pytest.mark.parametrize(("window", "side"), [(8, 16), (16, 8), (8, 12), (24, 9), (7, 30)])
def test_windows_of_another_size_keep_their_place(window, side):
    """A ramp of positions, 0 at one edge of the window and 1 at the other, is the same ramp in the box."""
    steps = (torch.arange(window) + 0.5) / window
    canvas = torch.zeros(2, side, side)
    scores = torch.stack([steps.expand(window, window), steps[:, None].expand(window, window)])
    crops.paste_maximum(canvas, scores, np.array([0, 0, side, side]))
    expected = ((torch.arange(side) + 0.5) / side).clamp(steps[0], steps[-1])  # no ramp outside of the centres
    torch.testing.assert_close(canvas[0], expected.expand(side, side))
    torch.testing.assert_close(canvas[1], expected[:, None].expand(side, side))

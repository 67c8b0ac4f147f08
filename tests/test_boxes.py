"""Boxes: whole pixels, squares, zero and void outside of the image, and no shift when scores are pasted back."""

import numpy as np
import pytest
import torch

from deconvnet.data.voc import VOID
from deconvnet.images import boxes, crops

# Boxes that leave an image of 8 × 10 px in part or fully, and one inside.
BOXES = [
    (-3, 2, 3, 8), (7, 2, 13, 8), (2, -3, 8, 3), (2, 5, 8, 11), (-4, -4, 14, 14), (3, 1, 7, 5),
    (-9, 0, -2, 7), (12, 0, 15, 3), (0, -5, 5, -1), (0, 9, 4, 13), (10, 8, 12, 10),
]  # fmt: skip
SCENE = (3, 8, 10)  # channels, height, width


def test_extended_boxes_by_hand():
    # 10 × 20 around (15, 20): side 1.2 · 20 = 24
    assert boxes.extend([[10, 10, 20, 30]], 1.2, square=True).tolist() == [[3, 8, 27, 32]]
    assert boxes.extend([[10, 10, 20, 30]], 1.2, square=False).tolist() == [[9, 8, 21, 32]]
    assert boxes.extend([[0, 0, 10, 5]], 1.2, square=True).tolist() == [[-1, -4, 11, 8]]  # centre 2.5: half to even
    assert boxes.extend([[5, 5, 6, 6]], 0.1, square=False).tolist() == [[5, 5, 6, 6]]  # never empty
    assert boxes.extend(np.zeros((0, 4)), 1.2, square=True).shape == (0, 4)


def test_random_extended_boxes_are_square_and_centred():
    rng = np.random.default_rng(0)
    corner, sides = rng.integers(0, 400, (500, 2)), rng.integers(1, 300, (500, 2))
    tight = np.hstack([corner, corner + sides])
    grown = boxes.extend(tight, 1.2, square=True)
    assert np.issubdtype(grown.dtype, np.integer)
    width, height = (grown[:, 2:] - grown[:, :2]).T
    assert (width == height).all()
    assert (width == np.maximum(np.rint(1.2 * sides.max(axis=1)), 1)).all()
    assert np.abs((grown[:, :2] + grown[:, 2:]) / 2 - (tight[:, :2] + tight[:, 2:]) / 2).max() <= 0.5


# Cropping


def test_crop_reads_columns_as_x_and_rows_as_y():
    picture = np.arange(20, dtype=np.uint8).reshape(4, 5)
    assert boxes.crop(picture, (1, 2, 4, 4), 0).tolist() == [[11, 12, 13], [16, 17, 18]]


@pytest.mark.parametrize("box", BOXES)
def test_a_crop_is_zero_or_void_outside_of_the_image(box):
    labels = np.random.default_rng(0).integers(1, 21, (8, 10)).astype(np.uint8)
    image = np.stack([labels] * 3, axis=2)
    x1, y1, x2, y2 = np.add(box, 20)
    assert (boxes.crop(labels, box, VOID) == np.pad(labels, 20, constant_values=VOID)[y1:y2, x1:x2]).all()
    assert (boxes.crop(image, box, 0) == np.pad(image, ((20, 20), (20, 20), (0, 0)))[y1:y2, x1:x2]).all()


def test_resized_labels_are_neither_mixed_nor_shifted():
    labels = np.array([[3, 7], [VOID, 0]], np.uint8)
    assert (boxes.resize_labels(labels, 6) == np.kron(labels, np.ones((3, 3), np.uint8))).all()
    nine = np.arange(81, dtype=np.uint8).reshape(9, 9)
    assert (boxes.resize_labels(nine, 3) == nine[1::3, 1::3]).all()  # the centre of each third


def test_resized_images_and_labels_are_aligned():
    """Class boundaries are at most half a pixel off the image's edges, for up- and downscaling."""
    for old, new in ((100, 72), (36, 72), (251, 250)):
        labels = np.zeros((old, old), np.uint8)
        labels[:, old // 3 :] = 1
        image = boxes.resize_image(np.stack([200 * labels] * 3, axis=2), new)[..., 0].astype(float) / 200
        small = boxes.resize_labels(labels, new)
        assert np.abs(image.sum(axis=1) - small.sum(axis=1)).max() <= 0.5 + 0.01


def test_crops_hold_the_content_of_their_boxes():
    image = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    inside, outside = crops.crop_boxes(image, np.array([[2, 1, 6, 5], [8, 6, 12, 10]]), 4)
    assert inside.dtype == torch.float32
    assert (inside.numpy() == image[1:5, 2:6].transpose(2, 0, 1)).all()
    assert (outside[:, :2, :2].numpy() == image[6:, 8:].transpose(2, 0, 1)).all()
    assert outside[:, 2:].sum() == outside[:, :, 2:].sum() == 0


def test_antialiasing_averages_an_image_that_shrinks():
    """A chessboard of single pixels, shrunk to a third: grey with antialiasing, black and white without."""
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


@pytest.mark.parametrize("box", BOXES)
def test_pasting_a_crop_restores_the_image_in_the_box(box):
    scene, canvas = torch.rand(SCENE, generator=torch.Generator().manual_seed(0)) + 1, torch.zeros(SCENE)
    cropped = boxes.crop(scene.permute(1, 2, 0).numpy(), box, outside=9)
    crops.paste_maximum(canvas, torch.from_numpy(cropped).permute(2, 0, 1), np.array(box))
    x1, y1, x2, y2 = np.clip(box, 0, [10, 8, 10, 8])
    expected = torch.zeros(SCENE)
    expected[:, y1:y2, x1:x2] = scene[:, y1:y2, x1:x2]
    assert torch.equal(canvas, expected)


def test_antialiasing_averages_scores_that_shrink():
    """A peak of one pixel, shrunk to a quarter: plain sampling at the centres of 4 × 4 cells misses it."""
    scores = torch.zeros(1, 16, 16)
    scores[0, 4, 4] = 16
    canvases = {}
    for antialias in (False, True):
        canvases[antialias] = torch.zeros(1, 4, 4)
        crops.paste_maximum(canvases[antialias], scores, np.array([0, 0, 4, 4]), antialias)
    assert canvases[False].sum() == 0
    assert canvases[True].sum() == pytest.approx(1, abs=0.15)  # 16 / 4², apart from the border


def test_negative_scores_never_win_over_the_zero_base():
    canvas = torch.zeros(2, 4, 4)
    scores = torch.stack([torch.full((2, 2), -3.0), torch.tensor([[-1.0, 2], [0, -0.5]])])
    crops.paste_maximum(canvas, scores, np.array([1, 1, 3, 3]))
    expected = torch.zeros(2, 4, 4)
    expected[1, 1, 2] = 2
    assert torch.equal(canvas, expected)


def test_the_maximum_of_overlapping_scores_wins_in_any_order():
    first, second = torch.tensor([[[1.0, 5], [2, 3]]]), torch.tensor([[[4.0, 9], [1, 6]]])
    canvases = []
    for order in (((first, 0), (second, 1)), ((second, 1), (first, 0))):
        canvas = torch.zeros(1, 2, 3)
        for scores, left in order:
            crops.paste_maximum(canvas, scores, np.array([left, 0, left + 2, 2]))
        canvases.append(canvas.tolist())
    assert canvases[0] == canvases[1] == [[[1, 5, 9], [2, 3, 6]]]


@pytest.mark.parametrize(("size", "side"), [(8, 16), (16, 8), (8, 12), (24, 9), (7, 30)])
def test_resized_scores_keep_their_positions(size, side):
    """A ramp from 0 at one edge of the scores to 1 at the other is the same ramp in the box."""
    steps = (torch.arange(size) + 0.5) / size
    canvas = torch.zeros(2, side, side)
    scores = torch.stack([steps.expand(size, size), steps[:, None].expand(size, size)])
    crops.paste_maximum(canvas, scores, np.array([0, 0, side, side]))
    expected = ((torch.arange(side) + 0.5) / side).clamp(steps[0], steps[-1])  # constant beyond the outermost centres
    torch.testing.assert_close(canvas[0], expected.expand(side, side))
    torch.testing.assert_close(canvas[1], expected[:, None].expand(side, side))

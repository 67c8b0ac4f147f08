"""Table 2 against the paper's, figures 2 and 3 against their captions; calibration and selected images by hand."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from deconvnet import DeconvNet
from deconvnet.data.voc import VOID
from deconvnet.evaluation import calibration
from deconvnet.inference import aggregate, ensemble
from deconvnet.report import architecture, captions, figures, plots, selection


@pytest.fixture(scope="module")
def layers() -> pd.DataFrame:
    with torch.device("meta"):
        return architecture.layers(DeconvNet()).set_index("layer")


def test_table2_is_the_papers(layers):
    """Names, sides and channels as the paper's table 2 lists them."""
    expected = [("conv1_1", 224, 64), ("conv1_2", 224, 64), ("pool1", 112, 64), ("conv2_1", 112, 128),
                ("conv2_2", 112, 128), ("pool2", 56, 128), ("conv3_1", 56, 256), ("conv3_2", 56, 256),
                ("conv3_3", 56, 256), ("pool3", 28, 256), ("conv4_1", 28, 512), ("conv4_2", 28, 512),
                ("conv4_3", 28, 512), ("pool4", 14, 512), ("conv5_1", 14, 512), ("conv5_2", 14, 512),
                ("conv5_3", 14, 512), ("pool5", 7, 512), ("fc6", 1, 4096), ("fc7", 1, 4096), ("fc6-deconv", 7, 512),
                ("unpool5", 14, 512), ("deconv5_1", 14, 512), ("deconv5_2", 14, 512), ("deconv5_3", 14, 512),
                ("unpool4", 28, 512), ("deconv4_1", 28, 512), ("deconv4_2", 28, 512), ("deconv4_3", 28, 256),
                ("unpool3", 56, 256), ("deconv3_1", 56, 256), ("deconv3_2", 56, 256), ("deconv3_3", 56, 128),
                ("unpool2", 112, 128), ("deconv2_1", 112, 128), ("deconv2_2", 112, 64), ("unpool1", 224, 64),
                ("deconv1_1", 224, 64), ("deconv1_2", 224, 64), ("seg-score", 224, 21)]  # fmt: skip
    assert list(zip(layers.index, layers["side"], layers["channels"], strict=True)) == expected


def test_table2_counts_every_parameter(layers):
    with torch.device("meta"):
        assert layers["parameters"].sum() == sum(p.numel() for p in DeconvNet().parameters())
    assert layers.loc["fc6", "parameters"] == 7 * 7 * 512 * 4096 + 4096 + 2 * 4096  # weights, bias, batch norm
    assert layers.loc["fc6", "kernel"] == layers.loc["fc6-deconv", "kernel"] == 7
    assert layers.loc[["unpool1", "pool1"], "kernel"].tolist() == [2, 2]


def lines_of_ink(path) -> int:
    """How many horizontal bands of a picture are not white."""
    inked = (np.asarray(Image.open(path).convert("L")) < 200).any(axis=1)
    return int(inked[0]) + np.count_nonzero(inked[1:] & ~inked[:-1])


def test_the_caption_stands_below_the_legend(layers, tmp_path):
    for name, caption in [("without", ""), ("with", "m")]:
        figures.save(architecture.figure2({"the paper": layers.reset_index()}), tmp_path / f"{name}.png", caption)
    assert lines_of_ink(tmp_path / "with.png") == lines_of_ink(tmp_path / "without.png") + 1


@pytest.fixture(scope="module")
def figure2(layers) -> Figure:
    return architecture.figure2({"the paper": layers.reset_index()})


def test_figure2_has_a_block_for_each_layer_and_the_side_above_each_group(layers, figure2):
    assert len(figure2.axes[0].patches) == len(layers)
    sides = [text.get_text() for text in figure2.axes[0].texts if "×" in text.get_text()]
    assert sides[:7] == ["224×224", "112×112", "56×56", "28×28", "14×14", "7×7", "1×1"]
    assert sides[7:] == sides[5::-1]


def test_figure2_has_the_channels_below_the_blocks(figure2):
    figure2.draw_without_rendering()
    below = [text for text in figure2.axes[0].texts if text.get_text().isdigit()]
    encoder = [64, 64, 128, 128, 256, 256, 512, 512, 512, 4096]
    decoder = [512, 512, 512, 256, 256, 128, 128, 64, 64, 21]
    assert [int(text.get_text()) for text in below] == encoder + decoder
    boxes = [text.get_window_extent() for text in below]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    assert min(text.get_fontsize() for text in below) >= 8


def test_figure2_has_an_arrow_from_each_pooling_to_its_unpooling(layers, figure2):
    """pool1 at 112×112 to unpool1 at 224×224, …, from the outside in: the unpoolings come in the reverse order."""
    arrows = [text for text in figure2.axes[0].texts if getattr(text, "arrow_patch", None)]
    starts, ends = ([getattr(arrow, at)[0] for arrow in arrows] for at in ("xyann", "xy"))
    assert len(arrows) == 5
    assert starts == sorted(starts, reverse=True)
    assert ends == sorted(ends)
    assert [round((2 * arrow.xy[1]) ** 2) for arrow in arrows] == [14, 28, 56, 112, 224]


def test_figure2_draws_each_network_on_its_own_scale(layers):
    small = layers.reset_index().assign(side=8)
    figure = architecture.figure2({"the paper": layers.reset_index(), "a small one": small})
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["the paper", "a small one"]
    large, small = (axis.get_ylim()[1] for axis in figure.axes)
    assert large / small == pytest.approx((224 / 8) ** 0.5)


def test_the_blocks_of_figure2_grow_as_its_caption_says(layers, figure2):
    blocks = figure2.axes[0].patches
    heights = dict(zip(layers["side"], (block.get_height() for block in blocks), strict=True))
    widths = dict(zip(layers["channels"], (block.get_width() for block in blocks), strict=True))
    assert heights[224] / heights[56] == pytest.approx(2)  # √(224 / 56)
    assert widths[512] - widths[256] == pytest.approx(widths[256] - widths[128])  # the logarithm
    (caption,) = (f.text for f in captions.FIGURES if f.file == "figure2")
    assert "√(side" in caption
    assert "log(channels)" in caption


def test_figure3_has_the_numbers_that_torch_computes():
    axes = architecture.figure3().axes
    rows = [[sorted(int(t.get_text()) for t in axis.texts if t.get_text()) for axis in axes[i : i + 3]]
            for i in range(0, 12, 3)]  # fmt: skip
    assert (len(rows[0][0]), rows[0][1:]) == (16, [[4, 6, 7, 8], []])  # the largest of each 2 × 2
    assert rows[1] == [[4, 6, 7, 8], [], [4, 6, 7, 8]]
    assert rows[2][2] == [45]  # 1 + … + 9
    assert rows[3] == [[1, 10], list(range(1, 10)), [1, 2, 3, 4, 5, 7, 8, 16, 20, 30, 49, 50, 60, 70, 80, 90]]
    assert [axes[i].get_title().split(":")[0] for i in range(0, 12, 3)] == [
        "pooling", "unpooling", "convolution", "deconvolution"
    ]  # fmt: skip


def test_figure3_draws_the_switches():
    """In both rows an arrow leads from the middle of each 2 × 2 to the cell that is marked."""
    for axis in (architecture.figure3().axes[i] for i in (2, 4)):
        ends = {(int(arrow.xy[0]), int(arrow.xy[1])) for arrow in axis.texts}
        marked = {tuple(map(int, cell.get_xy())) for cell in axis.patches if cell.get_facecolor()[2] < 0.5}
        assert ends == marked == {(0, 1), (3, 1), (0, 2), (2, 3)}


# Calibration


def test_reliability_by_hand():
    probabilities = np.zeros((21, 1, 4))
    probabilities[0, 0] = [0.95, 0.85, 0.15, 1.0]
    probabilities[3, 0] = [0.05, 0.15, 0.85, 0.0]
    ground_truth = np.array([[0, 3, 3, VOID]])
    table = calibration.reliability([(probabilities, ground_truth)])
    assert table["pixels"].tolist() == [0] * 8 + [2, 1]
    assert table["confidence"][8:].tolist() == pytest.approx([0.85, 0.95])
    assert table["accuracy"][8:].tolist() == [0.5, 1.0]
    assert calibration.calibration_error(table) == pytest.approx((2 * 0.35 + 0.05) / 3)


def test_a_pixel_that_no_proposal_covers_is_in_the_first_point():
    """As the figure's caption says: 21 scores of 0, so a probability of 1/21, labelled background."""
    nothing = aggregate.aggregate_maximum(torch.zeros(0, 21, 4, 4), np.zeros((0, 4), int), (2, 2))
    table = calibration.reliability([(ensemble.probabilities(nothing.numpy()), np.zeros((2, 2), int))])
    assert table["pixels"].tolist() == [4] + [0] * 9
    assert (table["confidence"][0], table["accuracy"][0]) == (pytest.approx(1 / 21), 1)
    (caption,) = (f.text for f in captions.FIGURES if f.file == "calibration")
    assert "1/21, labelled background" in caption


@pytest.mark.filterwarnings("error")
def test_without_a_labelled_pixel_there_is_no_error_and_a_figure(tmp_path):
    table = calibration.reliability([(np.full((21, 2, 2), 1 / 21), np.full((2, 2), VOID))])
    assert np.isnan(calibration.calibration_error(table))
    figure = plots.reliability({"FCN-8s": table}, {"FCN-8s": float("nan")})
    assert [text.get_text() for text in figure.axes[0].get_legend().texts] == ["FCN-8s, no pixel to compare"]
    figures.save(figure, tmp_path / "empty.png", "a caption")


# Which images are shown


def counts(*ious: float) -> np.ndarray:
    """An image of 100 pixels of class 0 for each IoU."""
    found = np.zeros((len(ious), 3, 21), np.uint32)
    for i, iou in enumerate(ious):
        found[i, :, 0] = round(100 * iou), 100, round(100 * iou)
    return found


def test_figure7_takes_the_largest_differences():
    run = {
        "counts/fcn8s": counts(0.5, 0.2, 0.9, 0.4, 0.5),
        "counts/deconvnet": counts(0.5, 0.8, 0.1, 0.3, 0.7),
        "counts/edeconvnet": counts(0.6, 0.9, 0.5, 0.7, 0.7),
    }
    *extremes, drawn = selection.figure7(run, list("abcde"), 1).values()
    assert extremes == [["b"], ["c"], ["d"]]
    assert drawn in (["a"], ["e"])  # of those that are in no other group
    assert list(selection.figure7(run, list("abcde"), 2).values()) == [["b", "e"], ["c", "d"], ["a"], []]
    same = {key: counts(0.5, 0.5) for key in run}  # no method is better anywhere
    *extremes, drawn = selection.figure7(same, ["a", "b"], 2).values()
    assert extremes == [[], [], []]
    assert sorted(drawn) == ["a", "b"]


def test_images_at_the_median_and_at_the_low_end():
    iou = np.array([0.1, np.nan, 0.5, 0.9, 0.35, 0.6])  # the median is 0.5
    assert selection.nearest_median(iou, list("abcdef"), 2) == ["c", "f"]
    assert selection.lowest(iou, list("abcdef"), 9) == ["a", "e", "c", "f", "d"]
    assert selection.nearest_median(np.array([np.nan]), ["a"], 2) == []
    assert selection.highest(iou, list("abcdef")) == "d"
    assert selection.highest(np.array([np.nan]), ["a"]) is None


def test_boxes_apart_are_the_best_that_hardly_overlap():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 12], [20, 0, 30, 10], [40, 0, 50, 10]])
    assert selection.apart(boxes, np.array([5, 9, 1, 7]), 3) == [1, 3, 2]  # the first is nearly the second
    assert selection.apart(boxes, np.array([5, 9, 1, 7]), 2) == [1, 3]


def test_figure1_takes_inconsistent_large_and_missed_small_objects():
    """All of another class is no inconsistency, nor is half of it background: the smaller share decides."""
    run = {
        "objects/image": np.array([0, 0, 1, 2, 2, 2, 3, 3]),
        "objects/size": np.array([0.8, 0.1, 0.9, 0.1, 0.1, 0.1, 0.8, 0.9]),
        "objects/recall/fcn8s": np.array([0.0, 0.0, 0.55, 0.0, 0.0, 0.4, 0.7, 0.5]),
        "objects/other/fcn8s": np.array([1.0, 0.9, 0.4, 0.0, 0.0, 0.4, 0.3, 0.0]),
    }
    chosen = selection.figure1(run, list("xyzw"), 0.25, 0.5, 1)
    assert chosen == {"y": "(a) 55 % right,\n40 % another", "z": "(b) 2 small missed"}
    assert list(selection.figure1(run, list("xyzw"), 0.25, 0.5, 3)) == ["y", "w", "z", "x"]


def test_figure5_takes_the_largest_object_of_a_class():
    objects = pd.DataFrame({"label": [12, 12, 2], "pixels": [5, 9, 99], "image": ["a", "b", "c"]})
    assert [selection.largest(objects, label) for label in (12, 2, 7)] == ["b", "c", None]

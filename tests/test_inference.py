"""Windows and score maps against plain loops, with a small DeconvNet whose scores are far from zero."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from deconvnet import DeconvNet, FCN8s
from deconvnet.config import schema
from deconvnet.config.errors import UserError
from deconvnet.data import voc
from deconvnet.images import store
from deconvnet.inference import aggregate, score_split
from deconvnet.networks.fuse import for_inference

IMAGE = np.random.default_rng(0).integers(0, 256, (30, 44, 3), dtype=np.uint8)
WINDOWS = np.array([[0, 0, 16, 16], [-6, 10, 14, 30], [20, -3, 52, 29], [5, 5, 12, 12], [30, 12, 46, 28]])


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = DeconvNet(classes=21, blocks=((4, 1), (4, 1)), fc=8, size=16, std=58).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.4)
    return net


def settings(**departures):
    defaults = {
        "windows": 50,
        "context": 1.0,
        "square_boxes": True,
        "min_side": 0,
        "antialias": False,
        "batch": 4,
        "fcn_canvas": None,
    }
    return schema.Inference(**(defaults | departures))


def proposals(*boxes):
    """Best first, with falling objectness."""
    return np.array([(*box, 1 - i / 100) for i, box in enumerate(boxes)], np.float32).reshape(-1, 5)


# Windows


def test_small_windows_are_skipped_before_the_count():
    found = proposals((0, 0, 5, 5), (0, 0, 20, 20), (1, 1, 9, 9), (5, 5, 30, 30), (0, 0, 40, 40))
    chosen = aggregate.select_proposals(found, (50, 50), settings(windows=2, min_side=10))
    assert chosen.tolist() == [[0, 0, 20, 20], [5, 5, 30, 30]]


def test_the_extended_side_is_what_counts():
    found = proposals((10, 10, 20, 20), (10, 10, 19, 19))
    chosen = aggregate.select_proposals(found, (50, 50), settings(context=1.2, min_side=12))
    assert chosen.tolist() == [[9, 9, 21, 21]]
    flat = aggregate.select_proposals(proposals((0, 0, 30, 9)), (50, 50), settings(square=False, min_side=10))
    assert flat.tolist() == [[0, 0, 50, 50]]  # its shorter side is 9


def test_the_best_proposals_come_first():
    found = proposals(*[(0, 0, 10 + i, 10 + i) for i in range(60)])
    chosen = aggregate.select_proposals(found, (99, 99), settings())
    assert chosen[:, 2].tolist() == list(range(10, 60))


@pytest.mark.parametrize("found", [proposals(), proposals((0, 0, 5, 5))])
def test_without_proposals_the_image_is_one_window(found):
    assert aggregate.select_proposals(found, (30, 44), settings(min_side=10)).tolist() == [[0, 0, 44, 30]]


# Scores


@torch.inference_mode()
def window_by_window(net, image, windows):
    """The paper's aggregation, written plainly."""
    height, width = image.shape[:2]
    around = np.pad(image, ((99, 99), (99, 99), (0, 0)))
    maximum = torch.zeros(21, height, width)
    for x1, y1, x2, y2 in windows.tolist():
        cut = cv2.resize(around[y1 + 99 : y2 + 99, x1 + 99 : x2 + 99], (16, 16), interpolation=cv2.INTER_LINEAR)
        scores = net(torch.from_numpy(cut).permute(2, 0, 1)[None].float())
        scores = F.interpolate(scores, (y2 - y1, x2 - x1), mode="bilinear", align_corners=False)[0]
        whole = torch.zeros(21, height + 198, width + 198)
        whole[:, y1 + 99 : y2 + 99, x1 + 99 : x2 + 99] = scores
        maximum = torch.maximum(maximum, whole[:, 99:-99, 99:-99])
    return maximum


def test_scores_are_those_of_a_plain_loop(net):
    expected = window_by_window(net, IMAGE, WINDOWS)
    assert (expected > 0).any()
    assert expected.std() > 0.01
    torch.testing.assert_close(aggregate.score_proposals(net, IMAGE, WINDOWS, batch=5), expected, atol=1e-4, rtol=1e-4)


def test_uncovered_pixels_are_background(net):
    scores = aggregate.score_proposals(net, IMAGE, WINDOWS[:1], batch=1)
    assert (scores[:, 16:] == 0).all()
    assert (scores[:, :, 16:] == 0).all()
    assert (scores.argmax(dim=0)[16:] == 0).all()


@pytest.mark.parametrize("batch", [1, 2, 3, 50])
def test_the_batch_does_not_change_the_scores(net, batch):
    """It would if batch norm were left in training mode."""
    scores = aggregate.score_proposals(net, IMAGE, WINDOWS, batch)
    torch.testing.assert_close(scores, aggregate.score_proposals(net, IMAGE, WINDOWS, 5), atol=1e-4, rtol=1e-4)


def test_the_order_of_windows_does_not_change_the_scores(net):
    forward, backward = (aggregate.score_proposals(net, IMAGE, order, 2) for order in (WINDOWS, WINDOWS[::-1]))
    torch.testing.assert_close(forward, backward, atol=1e-4, rtol=1e-4)


def test_a_huge_picture_is_put_together_class_by_class(net, monkeypatch):
    (scores,) = aggregate.score_crops(net, [IMAGE], [WINDOWS], 5)
    (whole,) = aggregate.aggregate_maximum(scores, WINDOWS, IMAGE.shape[:2])
    monkeypatch.setattr(aggregate, "MAX_CANVAS_ELEMENTS", 4 * 30 * 44)  # as if memory were short
    parts = list(aggregate.aggregate_maximum(scores, WINDOWS, IMAGE.shape[:2]))
    assert [len(part) for part in parts] == [4, 4, 4, 4, 4, 1]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=1e-5)


def test_windows_of_several_images_share_batches(net, monkeypatch):
    """Counted, not timed: 5 + 2 windows in batches of 4 are two calls, not three."""
    other, calls, inside = IMAGE[:20, ::-1], [], np.array([[0, 0, 16, 16], [5, 2, 20, 17]])
    monkeypatch.setattr(net, "forward", lambda x, plain=net.forward: calls.append(len(x)) or plain(x))
    together = aggregate.score_crops(net, [IMAGE, other], [WINDOWS, inside], 4)
    assert calls == [4, 3]
    for scores, image, windows in zip(together, [IMAGE, other], [WINDOWS, inside], strict=True):
        (alone,) = aggregate.score_crops(net, [image], [windows], 1)
        torch.testing.assert_close(scores, alone, atol=1e-4, rtol=1e-4)


def test_half_precision_is_a_setting_of_the_machine(net, monkeypatch):
    expected = aggregate.score_proposals(net, IMAGE, WINDOWS, 5)
    exact = for_inference(net)
    assert exact.score.weight.dtype == torch.float32
    monkeypatch.setenv("DECONVNET_PRECISION", "bf16-mixed")
    half = for_inference(net)
    assert half.score.weight.dtype == torch.bfloat16
    assert torch.equal(half.encoder.mean, net.encoder.mean)  # 122.675 would become 122.5
    found = aggregate.score_proposals(half, IMAGE, WINDOWS, 5)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().mean() < 0.02 * expected.abs().mean()
    monkeypatch.setenv("DECONVNET_PRECISION", "8-bit")
    with pytest.raises(UserError, match="32-true, tf32, bf16-mixed, not '8-bit'"):
        for_inference(net)


@pytest.mark.parametrize("shape", [(5, 7), (2, 3), (3, 40)])
def test_images_smaller_than_a_window(net, shape):
    image = IMAGE[: shape[0], : shape[1]]
    windows = aggregate.select_proposals(proposals(), shape, settings())
    torch.testing.assert_close(
        aggregate.score_proposals(net, image, windows, 4), window_by_window(net, image, windows), atol=1e-4, rtol=1e-4
    )
    assert aggregate.score_proposals(net, image, WINDOWS, 4).shape == (21, *shape)


def test_fcn_scores_the_whole_image_as_it_is():
    torch.manual_seed(0)
    fcn = FCN8s(blocks=((2, 1),) * 5, fc=2, size=64).eval()
    nn.init.normal_(fcn.score_fc7.weight)
    scores = aggregate.score_image(fcn, IMAGE[:, ::-1])  # a flipped view, as augmentation makes
    expected = fcn(torch.from_numpy(IMAGE[:, ::-1].copy()).permute(2, 0, 1)[None].float())[0]
    assert scores.shape == (21, 30, 44)
    torch.testing.assert_close(scores, expected.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fcn_canvas", [48, 32])
def test_the_canvas_is_zeros_after_the_mean_right_and_below(canvas):
    torch.manual_seed(0)
    fcn = FCN8s(blocks=((2, 1),) * 5, fc=2, size=64).eval()
    nn.init.normal_(fcn.score_fc7.weight)
    scores = aggregate.score_image(fcn, IMAGE, canvas)
    less_mean = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float() - fcn.encoder.mean
    padded = F.pad(less_mean, (0, max(canvas - 44, 0), 0, canvas - 30)) + fcn.encoder.mean
    expected = fcn(padded)[0, :, :30, :44].detach()
    assert scores.shape == (21, 30, 44)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)


# On disk


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SCORES", tmp_path / "scores")
    monkeypatch.setattr(store, "PREDICTIONS", tmp_path / "predictions")
    monkeypatch.setattr(aggregate, "VOC", tmp_path / "voc")
    voc.image_path(tmp_path / "voc", "a").parent.mkdir(parents=True)
    Image.fromarray(IMAGE).save(voc.image_path(tmp_path / "voc", "a"))
    return tmp_path


@pytest.mark.parametrize(("spread", "step"), [(0, 1 / 32), (20, 1 / 32), (1000, 1 / 4)])
def test_scores_survive_the_disk_to_half_a_step(folders, spread, step):
    scores = np.random.default_rng(0).normal(0, spread, (21, 50, 7)).astype(np.float32)
    store.save_scores("deconvnet", "a", scores)
    back = store.read_scores("deconvnet", "a")
    assert back.dtype == np.float32
    assert back.shape == scores.shape
    assert np.abs(back - scores).max() <= step / 2


def test_scores_by_hand_in_parts(folders):
    """Steps of 1/32, the label of the highest score on the way; a tie is the first class's."""
    file = store.ScoreFile("deconvnet", "a")
    file.add(np.array([[[0.5, -1.0, 2.0]], [[0.25, 0.01, 2.0]]], np.float32))
    file.add(np.array([[[0.5, 3.02, 1.0]]], np.float32))
    file.close()
    first, second = store.stream_scores("deconvnet", "a")
    assert first.tolist() == [[[0.5, -1.0, 2.0]], [[0.25, 0.0, 2.0]]]
    assert second.tolist() == [[[0.5, 3.03125, 1.0]]]  # 97 / 32
    assert store.read_prediction("deconvnet", "a").tolist() == [[0, 2, 0]]
    with pytest.raises(FloatingPointError, match="the network has diverged"):
        store.save_scores("deconvnet", "b", np.full((21, 2, 2), np.nan))


def test_a_prediction_is_the_channel_of_the_largest_score(folders):
    scores = np.zeros((21, 1, 4))
    scores[15, 0, 0] = scores[20, 0, 1] = 1
    scores[0, 0, 2] = 1  # pixel 3 is a tie of all: background
    store.save_prediction("deconvnet", "a", scores)
    back = store.read_prediction("deconvnet", "a")
    assert back.dtype == np.uint8
    assert back.tolist() == [[15, 20, 0, 0]]


def test_labels_have_the_images_size_and_come_from_its_windows(folders, net):
    found = {"a": proposals(*[box for box in WINDOWS if box[3] - box[1] == box[2] - box[0]])}
    score_split.score_split("deconvnet", net, ["a"], found, settings())
    read = voc.read_image(folders / "voc", "a")  # a JPEG: not IMAGE itself
    expected = window_by_window(net, read, WINDOWS).numpy()
    np.testing.assert_allclose(store.read_scores("deconvnet", "a"), expected, atol=1 / 64)
    labels = store.read_prediction("deconvnet", "a")
    assert labels.shape == IMAGE.shape[:2]
    assert (labels == expected.argmax(axis=0)).mean() > 0.99


def test_fcn_labels_have_the_images_size(folders):
    fcn = FCN8s(blocks=((1, 1),) * 5, fc=1, size=32).eval()
    nn.init.constant_(fcn.score_fc7.bias, 1.0)
    nn.init.constant_(fcn.score_fc7.bias[4:5], 2.0)
    score_split.score_split("fcn8s", fcn, ["a"], {}, settings())
    assert store.read_prediction("fcn8s", "a").shape == IMAGE.shape[:2]
    assert (store.read_prediction("fcn8s", "a")[8:-8, 8:-8] == 4).all()


def test_each_image_is_read_once_and_written_once(folders, net, monkeypatch):
    names = ["a", "b", "c", "d", "e", "f"]
    for name in names[1:]:
        Image.fromarray(IMAGE).save(voc.image_path(folders / "voc", name))
    read, written, plain, mask = [], [], voc.read_image, voc.save_mask
    monkeypatch.setattr(voc, "read_image", lambda folder, name: read.append(name) or plain(folder, name))
    monkeypatch.setattr(voc, "save_mask", lambda path, labels: written.append(path.stem) or mask(path, labels))
    score_split.score_split("deconvnet", net, names, dict.fromkeys(names, proposals((0, 0, 16, 16))), settings())
    for done in (read, written):  # two groups at once, each in its order
        assert len(done) == len(names)
        assert [n for n in done if n in names[:4]] == names[:4]
        assert [n for n in done if n in names[4:]] == names[4:]
    assert (store.read_scores("deconvnet", "b") == store.read_scores("deconvnet", "f")).all()

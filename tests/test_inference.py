"""Proposals and score maps against plain loops, with a small DeconvNet whose scores are far from zero."""

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
BOXES = np.array([[0, 0, 16, 16], [-6, 10, 14, 30], [20, -3, 52, 29], [5, 5, 12, 12], [30, 12, 46, 28]])
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = DeconvNet(classes=21, blocks=((4, 1), (4, 1)), fc=8, size=16, std=58).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.4)
    return net


def settings(**departures):
    defaults = {"num_proposals": 50, "context": 1.0, "square_boxes": True, "min_side": 0, "antialias": False,
                "batch_size": 4, "fcn_canvas": None}  # fmt: skip
    return schema.Inference(**(defaults | departures))


def proposals(*boxes):
    """Best first, with falling objectness."""
    return np.array([(*box, 1 - i / 100) for i, box in enumerate(boxes)], np.float32).reshape(-1, 5)


# Which proposals are used


def test_small_boxes_are_skipped_before_the_count_and_the_best_come_first():
    found = proposals((0, 0, 5, 5), (0, 0, 20, 20), (1, 1, 9, 9), (5, 5, 30, 30), (0, 0, 40, 40))
    selected = aggregate.select_proposals(found, (50, 50), settings(num_proposals=2, min_side=10))
    assert selected.tolist() == [[0, 0, 20, 20], [5, 5, 30, 30]]


def test_the_extended_side_is_what_counts():
    found = proposals((10, 10, 20, 20), (10, 10, 19, 19))
    selected = aggregate.select_proposals(found, (50, 50), settings(context=1.2, min_side=12))
    assert selected.tolist() == [[9, 9, 21, 21]]
    flat = proposals((0, 0, 30, 9))  # its shorter side is 9
    selected = aggregate.select_proposals(flat, (50, 50), settings(square_boxes=False, min_side=10))
    assert selected.tolist() == [[0, 0, 50, 50]]


@pytest.mark.parametrize("found", [proposals(), proposals((0, 0, 5, 5))])
def test_without_proposals_the_whole_image_is_one(found):
    assert aggregate.select_proposals(found, (30, 44), settings(min_side=10)).tolist() == [[0, 0, 44, 30]]


# Scores


@torch.inference_mode()
def box_by_box(net, image, boxes):
    """The paper's aggregation as a plain loop."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((99, 99), (99, 99), (0, 0)))
    maximum = torch.zeros(21, height, width)
    for x1, y1, x2, y2 in boxes.tolist():
        crop = cv2.resize(padded[y1 + 99 : y2 + 99, x1 + 99 : x2 + 99], (16, 16), interpolation=cv2.INTER_LINEAR)
        scores = net(torch.from_numpy(crop).permute(2, 0, 1)[None].float())
        scores = F.interpolate(scores, (y2 - y1, x2 - x1), mode="bilinear", align_corners=False)[0]
        whole = torch.zeros(21, height + 198, width + 198)
        whole[:, y1 + 99 : y2 + 99, x1 + 99 : x2 + 99] = scores
        maximum = torch.maximum(maximum, whole[:, 99:-99, 99:-99])
    return maximum


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_scores_are_those_of_a_plain_loop(net, batch_size):
    """In batches of any size: they would differ if batch norm were in training mode."""
    expected = box_by_box(net, IMAGE, BOXES)
    assert (expected == 0).all(dim=0).any()  # pixels that no proposal covers
    assert expected.std() > 0.01
    torch.testing.assert_close(aggregate.score_proposals(net, IMAGE, BOXES, batch_size), expected, **CLOSE)


def test_proposals_of_several_images_share_batches(net, monkeypatch):
    """Counted, not timed: 5 + 2 crops in batches of 4 are two calls, not three."""
    other, calls, inside = IMAGE[:20, ::-1], [], np.array([[0, 0, 16, 16], [5, 2, 20, 17]])
    monkeypatch.setattr(net, "forward", lambda x, plain=net.forward: calls.append(len(x)) or plain(x))
    together = aggregate.score_crops(net, [IMAGE, other], [BOXES, inside], 4)
    assert calls == [4, 3]
    for scores, image, boxes in zip(together, [IMAGE, other], [BOXES, inside], strict=True):
        (alone,) = aggregate.score_crops(net, [image], [boxes], 1)
        torch.testing.assert_close(scores, alone, **CLOSE)


def test_half_precision_is_a_setting_of_the_machine(net, monkeypatch):
    expected = aggregate.score_proposals(net, IMAGE, BOXES, 5)
    assert for_inference(net).score.weight.dtype == torch.float32
    monkeypatch.setenv("DECONVNET_PRECISION", "bf16-mixed")
    half = for_inference(net)
    assert half.score.weight.dtype == torch.bfloat16
    assert torch.equal(half.encoder.mean, net.encoder.mean)  # 122.675 would become 122.5
    found = aggregate.score_proposals(half, IMAGE, BOXES, 5)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().mean() < 0.02 * expected.abs().mean()
    monkeypatch.setenv("DECONVNET_PRECISION", "8-bit")
    with pytest.raises(UserError, match="32-true, tf32, bf16-mixed, not '8-bit'"):
        for_inference(net)


@pytest.mark.parametrize("shape", [(5, 7), (2, 3), (3, 40)])
def test_images_smaller_than_a_proposal(net, shape):
    image = IMAGE[: shape[0], : shape[1]]
    for boxes in (aggregate.select_proposals(proposals(), shape, settings()), BOXES):  # some boxes lie outside
        scores = aggregate.score_proposals(net, image, boxes, 4)
        torch.testing.assert_close(scores, box_by_box(net, image, boxes), **CLOSE)


@pytest.mark.parametrize("canvas", [None, 48, 32])
def test_fcn_scores_the_whole_image_on_its_canvas(canvas):
    """The canvas is 0 after the mean is taken off, right of the image and below it. Without one it is the image."""
    torch.manual_seed(0)
    fcn = FCN8s(blocks=((2, 1),) * 5, fc=2, size=64).eval()
    nn.init.normal_(fcn.score_fc7.weight)
    flipped = IMAGE[:, ::-1]  # a view with a negative stride, as augmentation makes them
    less_mean = torch.from_numpy(flipped.copy()).permute(2, 0, 1)[None].float() - fcn.encoder.mean
    side = canvas or 0
    padded = F.pad(less_mean, (0, max(side - 44, 0), 0, max(side - 30, 0))) + fcn.encoder.mean
    scores = aggregate.score_image(fcn, flipped, canvas)
    torch.testing.assert_close(scores, fcn(padded)[0, :, :30, :44].detach(), **CLOSE)


# A whole split, on disk


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Where six images lie, and where their scores and label maps will."""
    monkeypatch.setattr(store, "SCORES", tmp_path / "scores")
    monkeypatch.setattr(store, "PREDICTIONS", tmp_path / "predictions")
    monkeypatch.setattr(score_split, "VOC", tmp_path / "voc")
    voc.image_path(tmp_path / "voc", "a").parent.mkdir(parents=True)
    for name in "abcdef":
        Image.fromarray(IMAGE).save(voc.image_path(tmp_path / "voc", name))
    return tmp_path


def test_score_maps_and_label_maps_are_those_of_the_proposals(folders, net):
    score_split.score_split("deconvnet", net, ["a"], {"a": proposals(*BOXES)}, settings())
    decoded = voc.read_image(folders / "voc", "a")  # a JPEG: not IMAGE itself
    expected = box_by_box(net, decoded, BOXES).numpy()
    np.testing.assert_allclose(store.read_scores("deconvnet", "a"), expected, atol=1 / 64)
    labels = store.read_prediction("deconvnet", "a")
    assert labels.shape == IMAGE.shape[:2]
    assert (labels == expected.argmax(axis=0)).mean() > 0.99


def test_fcn_label_maps_have_the_images_size(folders):
    fcn = FCN8s(blocks=((1, 1),) * 5, fc=1, size=32).eval()
    nn.init.constant_(fcn.score_fc7.bias, 1.0)
    nn.init.constant_(fcn.score_fc7.bias[4:5], 2.0)
    score_split.score_split("fcn8s", fcn, ["a"], {}, settings())
    assert store.read_prediction("fcn8s", "a").shape == IMAGE.shape[:2]
    assert (store.read_prediction("fcn8s", "a")[8:-8, 8:-8] == 4).all()


def test_each_image_is_read_once_and_written_once(folders, net, monkeypatch):
    names, read, written, read_image, save_mask = list("abcdef"), [], [], voc.read_image, voc.save_mask
    monkeypatch.setattr(voc, "read_image", lambda folder, name: read.append(name) or read_image(folder, name))
    monkeypatch.setattr(voc, "save_mask", lambda path, labels: written.append(path.stem) or save_mask(path, labels))
    score_split.score_split("deconvnet", net, names, dict.fromkeys(names, proposals((0, 0, 16, 16))), settings())
    for done in (read, written):  # two groups at once, each in its order
        assert len(done) == len(names)
        assert [n for n in done if n in names[:4]] == names[:4]
        assert [n for n in done if n in names[4:]] == names[4:]
    assert (store.read_scores("deconvnet", "b") == store.read_scores("deconvnet", "f")).all()

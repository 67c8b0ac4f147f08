"""The share of a layer's energy on the target and its excess, by hand, and the decoder's layers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from deconvnet import DeconvNet
from deconvnet.data.voc import VOID
from deconvnet.evaluation import decoder_energy, measures
from deconvnet.networks.variants import BilinearDeconvNet

pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return DeconvNet(classes=21, blocks=((4, 1), (6, 2)), fc=8, size=16, std=58).eval()


def share(maps: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    return decoder_energy.energy_share(decoder_energy.energy_maps(maps, valid), target, valid)


def test_share_by_hand():
    maps = torch.tensor([[[[3.0, 1.0], [0.0, 2.0]], [[4.0, 0.0], [0.0, 0.0]]]])  # energies: 25 and 1, 0 and 4
    target = torch.tensor([[[True, False], [False, False]]])
    everywhere = torch.ones_like(target)
    found = decoder_energy.energy_maps(maps, everywhere)
    assert found.flatten().tolist() == pytest.approx([25 / 30, 1 / 30, 0, 4 / 30])
    assert share(maps, target, everywhere).item() == pytest.approx(25 / 30)
    valid = torch.tensor([[[True, True], [True, False]]])  # the energy of 4 lies on void
    assert decoder_energy.energy_maps(maps, valid).flatten().tolist() == pytest.approx([25 / 26, 1 / 26, 0, 0])
    assert share(maps, target, valid).item() == pytest.approx(25 / 26)
    assert share(torch.zeros_like(maps), target, everywhere).isnan().all()
    coarse = torch.tensor([[[[2.0]]]])  # one cell: it counts by its pixels
    assert share(coarse, target, valid).item() == pytest.approx(1 / 3)


def test_uniform_energy_is_at_chance():
    target = torch.zeros(1, 8, 8, dtype=torch.bool)
    target[0, 2:5, 1:7] = True
    valid = torch.ones_like(target)
    for side in (8, 4, 2, 1):
        assert share(torch.ones(1, 3, side, side), target, valid).item() == pytest.approx(18 / 64)


@pytest.mark.parametrize("kind", [DeconvNet, BilinearDeconvNet])
def test_recorded_layers_are_the_decoders(kind):
    torch.manual_seed(0)
    net = kind(classes=21, blocks=((4, 1), (6, 2)), fc=8, size=16, std=58).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    maps, scores = decoder_energy.forward(net, pictures)
    assert list(maps) == decoder_energy.layer_names(net) == ["unpool2", "deconv2", "unpool1", "deconv1"]
    assert [m.shape[-1] for m in maps.values()] == [8, 8, 16, 16]
    empty = (maps["unpool2"] == 0).float().mean().item()
    assert (empty >= 0.75) == (kind is DeconvNet)  # unpooling fills at most one of four cells
    assert not net.decoder[0]._forward_hooks
    with torch.inference_mode():
        whole = net(torch.from_numpy(pictures).permute(0, 3, 1, 2).float())
        assert torch.allclose(net.score(maps["deconv1"]), whole, atol=1e-6)
        assert torch.allclose(scores, whole, atol=1e-6)


def test_energy_of_objects(net):
    labels = np.zeros((20, 20), np.uint8)
    labels[4:12, 4:12], labels[14:, 14:] = 8, VOID
    instances = np.where(labels == 8, 1, 0).astype(np.uint8)
    instances[14:, 14:] = 2
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    rows = [{"image": "a", "instance": 1, "label": 8, "x1": 4, "y1": 4, "x2": 12, "y2": 12},
            {"image": "a", "instance": 2, "label": 8, "x1": 14, "y1": 14, "x2": 20, "y2": 20}]  # fmt: skip
    images = {"a": (image, labels, instances)}
    tables = decoder_energy.energy(net, images, pd.DataFrame(rows), 1.0)
    assert tables[2]["image"].tolist() == ["a"]  # the second is void only
    found = decoder_energy.as_counts(tables, ["z", "a"])
    assert found["energy/deconvnet"].tolist() == [pytest.approx([1] * 4)]  # the crop is the object
    assert found["energy_blind/deconvnet"].tolist() == [pytest.approx([1] * 4)]
    assert found["energy_image/deconvnet"].tolist() == [1]
    shares, blind, _ = decoder_energy.energy(net, images, pd.DataFrame(rows[:1]), 2.0)
    assert ((shares > 0) & (shares < 1)).all(axis=None)
    np.testing.assert_allclose(blind, shares, rtol=1e-5)  # one object: the mean over all is its own map
    _, target, valid = decoder_energy.object_crops(images, pd.DataFrame(rows[:1]), 2.0, 16)
    assert 0.15 < target.mean() / valid.mean() < 0.4  # about a quarter: void and what is outside are left out
    nothing = decoder_energy.as_counts(decoder_energy.energy(net, images, pd.DataFrame(rows[1:]), 1.0), ["a"])
    none_at_all = decoder_energy.as_counts(decoder_energy.energy(net, images, pd.DataFrame(rows).iloc[:0], 1.0), ["a"])
    for counts in (nothing, none_at_all):
        assert {key: values.shape for key, values in counts.items()} == {
            "energy/deconvnet": (0, 4), "energy_blind/deconvnet": (0, 4),
            "energy_iou/deconvnet": (0,), "energy_image/deconvnet": (0,),
        }  # fmt: skip


@pytest.mark.parametrize("size", [1, 64])
def test_excess_over_a_map_that_is_the_same_for_every_object_by_hand(monkeypatch, size):
    """Three crops of 4 × 4 pixels: the left half is an object; the right half is, with a row of void; void only."""
    labels, instances = np.zeros((4, 12), np.uint8), np.zeros((4, 12), np.uint8)
    instances[:, :2], instances[:, 6:8], instances[:, 8:] = 1, 2, 3
    labels[:, :2], labels[:, 6:8] = 8, 12
    labels[3, 4:8] = labels[:, 8:] = VOID
    image = np.zeros((4, 12, 3), np.uint8)
    image[:, 4:8], image[:, 8:] = 1, 2  # by which the network below knows its crop
    rows = [("a", 1, 8, 0, 0, 4, 4), ("a", 2, 12, 4, 0, 8, 4), ("a", 3, 12, 8, 0, 12, 4)]
    objects = pd.DataFrame(rows, columns=["image", "instance", "label", "x1", "y1", "x2", "y2"])
    unpooled = torch.tensor([[[3.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[5.0, 5.0], [5.0, 5.0]]])[:, None]
    convolved = torch.zeros(3, 1, 4, 4)
    convolved[0, 0, 0, 0] = 2.0  # nothing for the second object
    scores = torch.zeros(3, 21, 4, 4)
    scores[0, 8, :, :3], scores[1:, 12] = 1.0, 1.0

    def forward(net, pictures):
        crop = pictures[:, 0, 0, 0].tolist()
        return {"unpool1": unpooled[crop], "deconv1": convolved[crop]}, scores[crop]

    monkeypatch.setattr(decoder_energy, "forward", forward)
    monkeypatch.setattr(decoder_energy.batches, "__defaults__", (size,))
    net = SimpleNamespace(size=4, decoder=[None])
    shares, blind, about = decoder_energy.energy(net, {"a": (image, labels, instances)}, objects, 1.0)
    # Energies 9, 1, 0, 0 of 10; and 1, 0, 0, 1/2 of 3/2, since half of the lower cells is void.
    assert shares["unpool1"].tolist() == pytest.approx([9 / 10, 1 / 3])
    # Their mean is 47, 3, 0, 10 of 60; for the second object the lower cells count half: 47, 3, 0, 5 of 55.
    assert blind["unpool1"].tolist() == pytest.approx([47 / 60, 8 / 55])
    assert shares["deconv1"].tolist() == pytest.approx([1, float("nan")], nan_ok=True)
    assert blind["deconv1"].tolist() == [1, 0]  # the mean is of those that have energy
    assert about["iou"].tolist() == pytest.approx([8 / 12, 6 / 12])
    counts = decoder_energy.as_counts((shares, blind, about), ["a"])
    excess = measures.excess(counts, "deconvnet")[:, 0]
    assert excess.tolist() == pytest.approx([9 / 10 - 47 / 60, 1 / 3 - 8 / 55])


def test_the_channel_that_is_shown_has_the_most_energy_on_the_target_less_that_off_it():
    """On and off: 1 and 15, 4 and 0, 0 and 81, 9 and 16 (most on it; the median of the differences), 0.01 and 0 (the
    largest share with the second), as figure 4's caption says.
    """
    maps = torch.zeros(5, 4, 4)
    maps[0], maps[1, 1, 1], maps[2, 3, 3] = 1.0, 2.0, 9.0
    maps[3, 1, 1], maps[3, 3, 3], maps[4, 1, 1] = 3.0, 4.0, 0.1
    target = np.zeros((8, 8), bool)
    target[2:4, 2:4] = True
    shown, median = decoder_energy.selected_and_median(maps, target)
    assert shown[1, 1] == shown.sum() == 2 / 4  # on one scale: the largest of both is 1
    assert (median[1, 1], median[3, 3], median.sum()) == (3 / 4, 1, 7 / 4)

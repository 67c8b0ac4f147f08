"""The share of a layer's energy on the target, by hand, and the decoder's layers."""

import numpy as np
import pandas as pd
import pytest
import torch

from deconvnet import DeconvNet
from deconvnet.data.voc import VOID
from deconvnet.evaluation import decoder_energy
from deconvnet.networks.variants import BilinearDeconvNet

pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return DeconvNet(classes=21, blocks=((4, 1), (6, 2)), fc=8, size=16, std=58).eval()


def test_share_by_hand():
    maps = torch.tensor([[[[3.0, 1.0], [0.0, 2.0]], [[4.0, 0.0], [0.0, 0.0]]]])  # energies: 25 and 1, 0 and 4
    target = torch.tensor([[[True, False], [False, False]]])
    everywhere = torch.ones_like(target)
    assert decoder_energy.energy_share(maps, target, everywhere).item() == pytest.approx(25 / 30)
    valid = torch.tensor([[[True, True], [True, False]]])  # the energy of 4 lies on void
    assert decoder_energy.energy_share(maps, target, valid).item() == pytest.approx(25 / 26)
    assert decoder_energy.energy_share(torch.zeros_like(maps), target, everywhere).isnan().all()
    coarse = torch.tensor([[[[2.0]]]])  # one cell: it counts by its pixels
    assert decoder_energy.energy_share(coarse, target, valid).item() == pytest.approx(1 / 3)


def test_uniform_energy_is_at_chance():
    target = torch.zeros(1, 8, 8, dtype=torch.bool)
    target[0, 2:5, 1:7] = True
    valid = torch.ones_like(target)
    for side in (8, 4, 2, 1):
        share = decoder_energy.energy_share(torch.ones(1, 3, side, side), target, valid)
        assert share.item() == pytest.approx(18 / 64)


@pytest.mark.parametrize("kind", [DeconvNet, BilinearDeconvNet])
def test_recorded_layers_are_the_decoders(kind):
    torch.manual_seed(0)
    net = kind(classes=21, blocks=((4, 1), (6, 2)), fc=8, size=16, std=58).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    maps = decoder_energy.forward(net, pictures)
    assert list(maps) == decoder_energy.layer_names(net) == ["unpool2", "deconv2", "unpool1", "deconv1"]
    assert [m.shape[-1] for m in maps.values()] == [8, 8, 16, 16]
    empty = (maps["unpool2"] == 0).float().mean().item()
    assert (empty >= 0.75) == (kind is DeconvNet)  # unpooling fills at most one of four cells
    assert not net.decoder[0]._forward_hooks
    with torch.inference_mode():
        whole = net(torch.from_numpy(pictures).permute(0, 3, 1, 2).float())
        assert torch.allclose(net.score(maps["deconv1"]), whole, atol=1e-6)


def test_energy_of_objects(net):
    labels = np.zeros((20, 20), np.uint8)
    labels[4:12, 4:12], labels[14:, 14:] = 8, VOID
    instances = np.where(labels == 8, 1, 0).astype(np.uint8)
    instances[14:, 14:] = 2
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    rows = [{"image": "a", "instance": 1, "label": 8, "x1": 4, "y1": 4, "x2": 12, "y2": 12},
            {"image": "a", "instance": 2, "label": 8, "x1": 14, "y1": 14, "x2": 20, "y2": 20}]  # fmt: skip
    table = decoder_energy.energy(net, {"a": (image, labels, instances)}, pd.DataFrame(rows), 1.0)
    assert table["image"].tolist() == ["a"]  # the second is void only
    assert table["chance"].tolist() == [1]  # the crop is the object
    found = decoder_energy.as_counts(table, ["z", "a"], "deconvnet")
    assert found["deconvnet/energy"].tolist() == [pytest.approx([1] * 5)]
    assert found["deconvnet/energy_image"].tolist() == [1]
    wider = decoder_energy.energy(net, {"a": (image, labels, instances)}, pd.DataFrame(rows[:1]), 2.0)
    assert 0.15 < wider["chance"].item() < 0.4  # about a quarter of the crop: void and what is outside are left out


def test_the_channel_that_is_shown_has_the_most_energy_on_the_target_less_that_off_it():
    """On and off: 1 and 15, 4 and 0, 0 and 81, 9 and 16 (most on it), 0.01 and 0 (the largest share with the second),
    as figure 4's caption says.
    """
    maps = torch.zeros(5, 4, 4)
    maps[0], maps[1, 1, 1], maps[2, 3, 3] = 1.0, 2.0, 9.0
    maps[3, 1, 1], maps[3, 3, 3], maps[4, 1, 1] = 3.0, 4.0, 0.1
    target = np.zeros((8, 8), bool)
    target[2:4, 2:4] = True
    shown = decoder_energy.representative(maps, target)
    assert shown[1, 1] == 1
    assert shown.sum() == 1

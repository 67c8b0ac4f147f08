"""The boundary detector: its targets by hand; any image size; and that it learns to ignore texture."""

import numpy as np
import pytest
import torch

from deconvnet.config import params
from deconvnet.data.voc import VOID
from deconvnet.proposals import boundaries
from deconvnet.training import batch_norm, loop


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    monkeypatch.setenv("DECONVNET_WORKERS", "0")
    monkeypatch.setenv("DECONVNET_PRECISION", "32-true")


def test_boundaries_lie_on_both_sides_of_a_border():
    instances = np.array([[0, 0, 1, 1, 2, 2]] * 3, np.uint8)
    assert boundaries.boundary_targets(instances).tolist() == [[0, 1, 1, 1, 1, 0]] * 3
    assert boundaries.boundary_targets(instances.T).tolist() == np.array([[0, 1, 1, 1, 1, 0]] * 3).T.tolist()


def test_a_boundary_runs_through_the_middle_of_the_void():
    instances = np.array([[0, 0, VOID, VOID, 1, 1, 1]] * 3, np.uint8)
    assert boundaries.boundary_targets(instances).tolist() == [[0, 0, 1, 1, 0, 0, 0]] * 3


def test_void_far_from_every_label_stays_void():
    instances = np.full((1, 30), VOID, np.uint8)
    instances[0, 0] = 1
    targets = boundaries.boundary_targets(instances)[0]
    assert (targets[:6] == 0).all()
    assert (targets[8:] == VOID).all()
    assert (boundaries.boundary_targets(np.full((4, 4), VOID, np.uint8)) == VOID).all()


def test_thin_boundaries_survive_resizing():
    targets = np.zeros((60, 60), np.uint8)
    targets[:, 31] = 1  # nearest-neighbour sampling of every third pixel would miss it
    small = boundaries.resize_targets(targets, 20)
    assert (small[:, 10] == 1).all()
    assert small.sum() == 20


@pytest.mark.parametrize("shape", [(16, 16), (37, 53), (5, 9)])
def test_scores_have_the_size_of_the_image(shape):
    net = boundaries.BoundaryNet([4, 6, 8]).eval()
    assert net(torch.rand(2, 3, *shape)).shape == (2, 2, *shape)
    image = np.zeros((*shape, 3), np.uint8)
    found = boundaries.boundary_probability(net, image, [1.0, 0.5])
    assert found.shape == shape
    assert found.dtype == np.float32


def test_the_probability_is_the_mean_over_scales():
    class Flat(torch.nn.Module):
        """The odds of a boundary are the height of the scaled image."""

        forward = lambda self, x: torch.stack([0 * x[:, 0], 0 * x[:, 0] + np.log(x.shape[2])], dim=1)  # noqa: E731

    found = boundaries.boundary_probability(Flat(), np.zeros((40, 60, 3), np.uint8), [1.0, 0.5])
    assert found == pytest.approx((40 / 41 + 20 / 21) / 2)


def test_it_learns_to_ignore_texture():
    """Squares on stripes that belong to no object: after 60 iterations the squares' boundaries are more probable."""
    rng = np.random.default_rng(0)

    def scene():
        image, instances = np.zeros((48, 48, 3), np.uint8), np.zeros((48, 48), np.uint8)
        image[::4, :, 2] = 200  # stripes
        y, x = rng.integers(4, 24, size=2)
        image[y : y + 18, x : x + 18, 0] = 220
        instances[y : y + 18, x : x + 18] = 1
        return image, np.minimum(instances, 1), instances

    images = {str(i): scene() for i in range(12)}
    update = {
        "iterations": 60,
        "batch_size": 4,
        "crop_size": 48,
        "zoom": (0.9, 1.1),
        "warmup": 5,
        "lr": 0.01,
        "seed": 0,
    }
    solver = params.validate(params.compose("smoke"), "smoke").boundaries.model_copy(update=update)
    torch.manual_seed(0)
    net = boundaries.BoundaryNet([8, 8, 8])
    batches = boundaries.boundary_batches(images, list(images), solver)
    loop.train(net, batches, solver)
    batch_norm.fix_batch_norm(net, batches.resampled(5, 4))
    image, _, instances = scene()
    found, targets = boundaries.boundary_probability(net, image, [1.0]), boundaries.boundary_targets(instances)
    assert found[targets == 1].mean() > 3 * found[targets == 0].mean()

"""More and more windows, and three ways to put them together, against plain loops."""

import numpy as np
import pytest
import torch
from test_inference import IMAGE, WINDOWS, settings

from deconvnet import DeconvNet
from deconvnet.data.voc import VOID
from deconvnet.evaluation import proposal_study
from deconvnet.inference import aggregate

SHAPE = IMAGE.shape[:2]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = DeconvNet(classes=21, blocks=((4, 1), (4, 1)), fc=8, size=16, std=58).eval()
    for parameter in net.parameters():
        if parameter.ndim == 4:
            torch.nn.init.normal_(parameter, std=0.4)
    return net


def flat(*values: float) -> torch.Tensor:
    """The scores of windows that say the same everywhere: value of class 1, its negative of class 2."""
    return torch.tensor([[0.0, v, -v] for v in values])[:, :, None, None].expand(-1, -1, 4, 4)


def test_rules_by_hand():
    """Two windows of 4 × 4 side by side with one column in common."""
    boxes = np.array([[0, 0, 4, 4], [3, 0, 7, 4]])
    expected = {
        "maximum": ([2.0, 6, 6], [0.0, 0, 0]),  # of class 1, of class 2; a score under the base of 0 never wins
        "sum": ([2.0, 8, 6], [-2.0, -8, -6]),
        "mean": ([2.0, 4, 6], [-2.0, -4, -6]),
    }
    for rule, (first, second) in expected.items():
        found = aggregate.aggregate(flat(2, 6), boxes, (4, 9), rule)
        assert found[1, 0, [0, 3, 4]].tolist() == first, rule
        assert found[2, 0, [0, 3, 4]].tolist() == second, rule
        assert (found[:, :, 7:] == 0).all()  # no window lies there
    with pytest.raises(ValueError, match="maximum, sum, mean, not median"):
        aggregate.aggregate(flat(2), boxes[:1], (4, 9), "median")


def test_sum_and_mean_name_the_same_classes():
    scores = torch.randn(5, 21, 16, 16, generator=torch.Generator().manual_seed(0))
    summed, mean = (aggregate.aggregate(scores, WINDOWS, SHAPE, rule).argmax(dim=0) for rule in ("sum", "mean"))
    assert torch.equal(summed, mean)


def test_the_maximum_is_what_inference_makes(net):
    scores = aggregate.score_crops(net, [IMAGE], [WINDOWS], 2)[0]
    together = aggregate.score_proposals(net, IMAGE, WINDOWS, 2)
    assert torch.allclose(aggregate.aggregate(scores, WINDOWS, SHAPE, "maximum"), together, atol=1e-5)
    *_, last = aggregate.label_maps_by_count(scores, WINDOWS, SHAPE, [1, 3, 5])
    assert (last == together.argmax(dim=0).numpy()).all()


def test_each_step_is_the_map_of_that_many_windows(net):
    scores = aggregate.score_crops(net, [IMAGE], [WINDOWS], 4)[0]
    steps = list(aggregate.label_maps_by_count(scores, WINDOWS, SHAPE, [1, 2, 4, 100]))
    for count, step in zip((1, 2, 4, 5), steps, strict=True):
        alone = aggregate.aggregate(scores[:count], WINDOWS[:count], SHAPE, "maximum")
        assert (step == alone.argmax(dim=0).numpy()).all()


def test_largest_first_and_equal_ones_in_their_order():
    boxes = np.array([[0, 0, 4, 4], [0, 0, 9, 9], [5, 5, 9, 9], [0, 0, 2, 20]])
    assert aggregate.largest_first(boxes).tolist() == [1, 3, 0, 2]


def test_a_study_counts_what_it_shows(net):
    truth = np.random.default_rng(0).integers(0, 21, SHAPE).astype(np.uint8)
    truth[0] = VOID
    images = {"a": (IMAGE, truth, truth)}
    boxes = np.hstack([WINDOWS, np.linspace(1, 0.5, 5)[:, None]]).astype(np.float32)
    found, steps = proposal_study.study(net, images, ["a"], {"a": boxes}, settings(windows=4), [1, 2, 4, 5])
    keys = {"best/1", "best/2", "best/4", "best/5", "largest/1", "largest/2", "largest/4"}
    assert set(found) == {f"windows/{key}" for key in keys | {"rule/maximum", "rule/sum", "rule/mean"}}
    assert steps["a"].shape == (4, *SHAPE)
    valid = truth != VOID
    for step, count in zip(steps["a"], (1, 2, 4, 5), strict=True):
        hits, of_truth, predicted = found[f"windows/best/{count}"][0]
        assert hits.sum() == ((step == truth) & valid).sum()
        assert of_truth.sum() == predicted.sum() == valid.sum()
    # four windows are all that inference uses, in whatever order they come
    assert (found["windows/best/4"] == found["windows/largest/4"]).all()
    assert (found["windows/best/4"] == found["windows/rule/maximum"]).all()
    whole = proposal_study.predict_label_maps(net, images, ["a"], {"a": boxes}, settings(windows=4))
    assert (whole["a"] == steps["a"][2]).all()

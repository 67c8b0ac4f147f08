"""Label maps as proposals are added, and three ways to aggregate their scores, against plain loops."""

from itertools import pairwise

import numpy as np
import pytest
import test_inference
import torch
from PIL import Image
from test_inference import BOXES, IMAGE, settings

from deconvnet.data.voc import VOID
from deconvnet.evaluation import per_image, proposal_study
from deconvnet.inference import aggregate

net = test_inference.net  # a fixture
pytestmark = pytest.mark.usefixtures("on_the_cpu")
SHAPE = IMAGE.shape[:2]
PROPOSALS = {"a": np.hstack([BOXES, np.linspace(1, 0.5, 5)[:, None]]).astype(np.float32)}
GROUND_TRUTH = np.random.default_rng(0).integers(0, 21, SHAPE).astype(np.uint8)
GROUND_TRUTH[0] = VOID
IMAGES = {"a": (IMAGE, GROUND_TRUTH, GROUND_TRUTH)}


@pytest.fixture
def scores(net) -> torch.Tensor:
    return aggregate.score_crops(net, [IMAGE], [BOXES], 4)[0]


def constant(*values: float) -> torch.Tensor:
    """The scores of proposals, equal at all pixels: `value` of class 1, its negative of class 2."""
    return torch.tensor([[0.0, v, -v] for v in values])[:, :, None, None].expand(-1, -1, 4, 4)


def test_aggregation_rules_by_hand():
    """Two boxes of 4 × 4 side by side with one column in common."""
    boxes = np.array([[0, 0, 4, 4], [3, 0, 7, 4]])
    expected = {
        "maximum": ([2.0, 6, 6], [0.0, 0, 0]),  # of class 1, of class 2; a score under the base of 0 never wins
        "sum": ([2.0, 8, 6], [-2.0, -8, -6]),
        "mean": ([2.0, 4, 6], [-2.0, -4, -6]),
    }
    for rule, (first, second) in expected.items():
        found = aggregate.aggregate(constant(2, 6), boxes, (4, 9), rule)
        assert found[1, 0, [0, 3, 4]].tolist() == first, rule
        assert found[2, 0, [0, 3, 4]].tolist() == second, rule
        assert (found[:, :, 7:] == 0).all()  # no box covers these columns
    with pytest.raises(ValueError, match="maximum, sum, mean, not median"):
        aggregate.aggregate(constant(2), boxes[:1], (4, 9), "median")


def test_each_label_map_is_that_of_so_many_proposals(scores):
    steps = list(aggregate.label_maps_by_count(scores, BOXES, SHAPE, [1, 2, 4, 100]))
    for count, step in zip((1, 2, 4, 5), steps, strict=True):
        alone = aggregate.aggregate(scores[:count], BOXES[:count], SHAPE, "maximum")
        assert (step == alone.argmax(dim=0).numpy()).all()
    assert all((a != b).any() for a, b in pairwise(steps))


def test_the_largest_come_first_and_equal_ones_keep_their_order():
    boxes = np.array([[0, 0, 4, 4], [0, 0, 9, 9], [5, 5, 9, 9], [0, 0, 2, 20]])
    assert aggregate.largest_first(boxes).tolist() == [1, 3, 0, 2]


def test_the_study_counts_each_label_map(net, scores, tmp_path, monkeypatch):
    chosen = settings(num_proposals=4)
    found, steps = proposal_study.study(net, IMAGES, ["a"], PROPOSALS, chosen, [1, 2, 4, 5])

    def counts(indices: list[int], rule: str = "maximum") -> np.ndarray:
        labels = aggregate.aggregate(scores[indices], BOXES[indices], SHAPE, rule).argmax(dim=0).numpy()
        return per_image.image_counts(GROUND_TRUTH, labels)[None]

    # From the largest to the smallest of the four that inference uses: 2, 1, 0, 3. "best" goes on to the fifth.
    expected = {f"best/{n}": counts(list(range(n))) for n in (1, 2, 4, 5)}
    expected |= {f"largest/{n}": counts([2, 1, 0, 3][:n]) for n in (1, 2, 4)}
    expected |= {f"rule/{rule}": counts([0, 1, 2, 3], rule) for rule in ("maximum", "sum", "mean")}
    assert {key: value.tolist() for key, value in found.items()} == {
        f"proposals/{key}": value.tolist() for key, value in expected.items()
    }
    assert steps["a"].shape == (4, *SHAPE)
    label_maps = proposal_study.predict_label_maps(net, IMAGES, ["a"], PROPOSALS, chosen)
    assert (label_maps["a"] == steps["a"][2]).all()
    monkeypatch.setattr(proposal_study, "STEPS", tmp_path)
    proposal_study.save_steps(steps)
    assert (np.array(Image.open(tmp_path / "a.png")) == np.concatenate(steps["a"])).all()


def test_figure6_adds_proposals_from_the_largest_to_the_smallest(net, scores):
    image, one, all_five, ground_truth = proposal_study.figure6_row(
        net, IMAGES["a"], PROPOSALS["a"], settings(), [1, 5]
    )
    assert (image == IMAGE).all()
    assert (ground_truth == GROUND_TRUTH).all()
    for labels, indices in ((one, [2]), (all_five, [0, 1, 2, 3, 4])):
        expected = aggregate.aggregate(scores[indices], BOXES[indices], SHAPE, "maximum").argmax(dim=0).numpy()
        assert (labels == expected).all()

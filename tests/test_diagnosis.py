"""Each part of inference given by the ground truth: on a drawn scene with proposals whose answers are set by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from deconvnet.config import params
from deconvnet.evaluation import diagnosis
from deconvnet.evaluation.diagnosis import Chosen
from deconvnet.inference import aggregate

pytestmark = pytest.mark.usefixtures("on_the_cpu")
SIDE = 8
DOG, CAT = 12, 8
SETTINGS = params.load().inference.model_copy(update={"context": 1.0, "square_boxes": False, "min_side": 1})
PAPER = Chosen(0.0, 1.0)


class Says(nn.Module):
    """A network whose answer to a crop is set by its mean grey: {grey: (class of its left half, of its right)}."""

    size = SIDE

    def __init__(self, answers: dict[int, tuple[int, int]]):
        super().__init__()
        self.answers = answers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(len(x), 21, SIDE, SIDE)
        for i, crop in enumerate(x):
            grey = min(self.answers, key=lambda grey: abs(grey - float(crop.mean())))
            for half, label in zip((slice(0, SIDE // 2), slice(SIDE // 2, SIDE)), self.answers[grey], strict=True):
                scores[i, label, :, half] = 5.0
        return scores


# A dog in the left half of a picture of 16 x 8 px, background on the right; one proposal on each.
LABELS = np.zeros((8, 16), np.uint8)
LABELS[:, :8] = DOG
INSTANCES = (LABELS == DOG).astype(np.uint8)
IMAGE = np.zeros((8, 16, 3), np.uint8)
IMAGE[:, :8], IMAGE[:, 8:] = 50, 200
OBJECTS = pd.DataFrame([{"image": "a", "instance": 1, "label": DOG, "x1": 0, "y1": 0, "x2": 8, "y2": 8}])
PROPOSALS = np.array([[0, 0, 8, 8, 0.9], [8, 0, 16, 8, 0.8]])


def found(answers: dict, proposals=PROPOSALS, chosen=PAPER) -> dict[str, np.ndarray]:
    return diagnosis.label_maps(Says(answers), (IMAGE, LABELS, INSTANCES), OBJECTS, proposals, SETTINGS, chosen)


def right(label_map: np.ndarray) -> float:
    return float((label_map == LABELS).mean())


def test_as_in_the_paper_it_is_the_paper_s_inference():
    maps = found({50: (DOG, DOG), 200: (CAT, CAT)})
    selected = aggregate.select_proposals(PROPOSALS, LABELS.shape, SETTINGS)
    scores = aggregate.score_proposals(Says({50: (DOG, DOG), 200: (CAT, CAT)}), IMAGE, selected, 8)
    assert (maps[diagnosis.PAPER] == scores.argmax(dim=0).numpy()).all()
    assert set(maps) == {diagnosis.PAPER, *diagnosis.GIVEN, *diagnosis.OTHERWISE}


def test_a_false_alarm_is_cured_by_the_choice_of_proposals_and_not_by_classes():
    maps = found({50: (DOG, DOG), 200: (CAT, CAT)})  # a cat where there is nothing
    assert right(maps[diagnosis.PAPER]) == 0.5
    assert right(maps["hits"]) == right(maps["boxes"]) == 1
    assert right(maps["classes"]) == right(maps["shapes"]) == 0.5  # that proposal overlaps no object
    assert right(maps["pixels"]) == 0.5  # no proposal says background there


def test_a_wrong_class_is_cured_by_the_class_alone():
    maps = found({50: (CAT, CAT), 200: (0, 0)})
    assert right(maps[diagnosis.PAPER]) == 0.5
    assert right(maps["classes"]) == 1
    assert right(maps["hits"]) == right(maps["boxes"]) == right(maps["shapes"]) == right(maps["pixels"]) == 0.5


def test_a_wrong_shape_is_cured_by_the_shape_alone():
    maps = found({50: (DOG, 0), 200: (0, 0)})  # only its left half
    assert right(maps[diagnosis.PAPER]) == 0.75
    assert right(maps["shapes"]) == 1
    assert right(maps["hits"]) == right(maps["classes"]) == 0.75


def test_a_proposal_that_is_right_somewhere_counts_for_the_upper_bound():
    twice = np.array([[0, 0, 8, 8, 0.9], [0, 0, 16, 8, 0.8]])  # the second holds all of the picture: mean grey 125
    maps = found({50: (DOG, DOG), 125: (CAT, CAT)}, twice)
    assert right(maps[diagnosis.PAPER]) == 0  # of two equal scores the first class wins: the cat
    assert right(maps["pixels"]) == 0.5  # one proposal says dog on the left; none says background on the right
    maps = found({50: (CAT, CAT), 125: (DOG, 0)}, twice)
    assert right(maps["pixels"]) == pytest.approx(1, abs=0.07)


def test_the_bias_and_the_rejection_remove_what_is_weak():
    answers = {50: (DOG, DOG), 200: (CAT, CAT)}
    assert (found(answers, chosen=Chosen(6.0, 1.0))["bias"] == 0).all()  # above the score of 5
    assert (found(answers, chosen=Chosen(4.0, 1.0))["bias"] == found(answers)[diagnosis.PAPER]).all()
    half = {50: (DOG, DOG), 200: (CAT, 0)}  # half of it is background, by its own word
    assert right(found(half, chosen=Chosen(0.0, 0.4))["rejection"]) == 1
    assert right(found(half, chosen=Chosen(0.0, 1.0))["rejection"]) == 0.75


def test_dev_chooses_the_bias_and_the_rejection(monkeypatch):
    monkeypatch.setattr(diagnosis, "REJECTIONS", [0.4, 1.0])
    images = {"a": (IMAGE, LABELS, INSTANCES)}
    chosen, tried = diagnosis.choose(Says({50: (DOG, DOG), 200: (CAT, 0)}), images, OBJECTS, {"a": PROPOSALS}, SETTINGS)
    assert chosen.rejection == 0.4
    assert tried["rejection"] == {0.4: 1.0, 1.0: pytest.approx((0.5 + 1 + 0) / 3)}  # with a cat on 4 x 8 px
    assert chosen.bias == diagnosis.BIASES[0]  # no bias helps: the first of equal ones
    assert tried["bias"][10.0] < tried["bias"][0.0]  # all background


def test_the_summary_has_gains_and_kinds_of_error():
    images = {"a": (IMAGE, LABELS, INSTANCES)}
    net = Says({50: (DOG, DOG), 200: (CAT, CAT)})
    counted = diagnosis.diagnose(net, images, OBJECTS, {"a": PROPOSALS}, SETTINGS, PAPER)
    rows = diagnosis.summary([counted], 200, 0)
    assert rows["hits"]["gain"]["value"] == pytest.approx(
        rows["hits"]["mean_iou"]["value"] - rows["paper"]["mean_iou"]["value"]
    )
    assert rows["hits"]["mean_iou"]["value"] == 100
    assert (rows["paper"]["invented"]["value"], rows["hits"]["invented"]["value"]) == (50, 0)
    assert (rows["boxes"]["given"], rows["bias"]["given"]) == (True, False)


def test_an_image_without_objects_or_proposals():
    none = OBJECTS.iloc[:0]
    example = (IMAGE, np.zeros_like(LABELS), np.zeros_like(INSTANCES))
    maps = diagnosis.label_maps(Says({125: (CAT, CAT)}), example, none, np.zeros((0, 5)), SETTINGS, PAPER)
    assert (maps["paper"] == CAT).all()  # the whole image is the proposal
    assert (maps["boxes"] == 0).all()
    assert (maps["hits"] == 0).all()

"""Label maps as proposals are added (figure 6, claim C4), and by other aggregation rules."""

import numpy as np
from torch import nn

from deconvnet.config.paths import STEPS
from deconvnet.config.schema import Inference
from deconvnet.data import voc
from deconvnet.evaluation import per_image
from deconvnet.evaluation.per_image import PerImageCounts
from deconvnet.images.image_cache import Images
from deconvnet.inference import aggregate
from deconvnet.inference.aggregate import label_maps_by_count, largest_first
from deconvnet.utils import parallel


def predict_label_maps(net: nn.Module, images: Images, names: list[str], proposals: dict, settings: Inference) -> dict:
    """{name: label map} by DeconvNet, as `score_split` makes them, in memory."""

    def task(name: str) -> np.ndarray:
        image = images[name][0]
        selected = aggregate.select_proposals(proposals[name], image.shape[:2], settings)
        scores = aggregate.score_proposals(net, image, selected, settings.batch_size, settings.antialias)
        return scores.argmax(dim=0).byte().cpu().numpy()

    return dict(zip(names, parallel.thread_map(task, names, "label maps"), strict=True))


def study(
    net: nn.Module, images: Images, names: list[str], proposals: dict, settings: Inference, counts: list[int]
) -> tuple[PerImageCounts, dict[str, np.ndarray]]:
    """Counts as proposals are added, best first or largest first (of those that inference uses), and for each rule;
    and {name: label maps (counts, H, W)}, best first.
    """
    more, number = settings.model_copy(update={"num_proposals": max(counts)}), settings.num_proposals

    def task(name: str) -> tuple[np.ndarray, PerImageCounts]:
        image, ground_truth, _ = images[name]
        shape, antialias = ground_truth.shape, settings.antialias
        selected = aggregate.select_proposals(proposals[name], shape, more)
        (scores,) = aggregate.score_crops(net, [image], [selected], settings.batch_size, antialias)
        best = np.stack(list(label_maps_by_count(scores, selected, shape, counts, antialias)))
        used, used_scores = selected[:number], scores[:number]
        order, fewer = largest_first(used), [n for n in counts if n <= number]
        *largest, maximum = label_maps_by_count(used_scores[order], used[order], shape, [*fewer, number], antialias)
        total, covered = aggregate.sum_scores(used_scores, used, shape, antialias)
        predicted = {f"best/{n}": m for n, m in zip(counts, best, strict=True)}
        predicted |= {f"largest/{n}": m for n, m in zip(fewer, largest, strict=True)}
        predicted["rule/maximum"] = maximum  # in any order
        for rule, aggregated in (("sum", total), ("mean", total / covered.clamp(min=1))):
            predicted[f"rule/{rule}"] = aggregated.argmax(dim=0).byte().cpu().numpy()
        return best, {f"proposals/{k}": per_image.image_counts(ground_truth, m) for k, m in predicted.items()}

    label_maps, counted = zip(*parallel.thread_map(task, names, "more and more proposals"), strict=True)
    return {k: np.stack([c[k] for c in counted]) for k in counted[0]}, dict(zip(names, label_maps, strict=True))


def save_steps(label_maps: dict[str, np.ndarray]) -> None:
    """Writes the label maps of `study`, those of an image below each other in one file: data/steps/<name>.png."""
    STEPS.mkdir(parents=True, exist_ok=True)
    for name, steps in label_maps.items():
        voc.save_mask(STEPS / f"{name}.png", np.concatenate(steps))


def figure6_row(
    net: nn.Module, example: tuple, proposals: np.ndarray, settings: Inference, counts: list[int]
) -> list[np.ndarray]:
    """The image, its label map after each of `counts` proposals, largest first, and the ground truth."""
    image, ground_truth, _ = example
    selected = aggregate.select_proposals(proposals, ground_truth.shape, settings)
    selected = selected[largest_first(selected)]
    (scores,) = aggregate.score_crops(net, [image], [selected], settings.batch_size, settings.antialias)
    return [image, *label_maps_by_count(scores, selected, ground_truth.shape, counts, settings.antialias), ground_truth]

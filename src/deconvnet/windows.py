"""The map of an image as its windows come in (the paper's figure 6, claim C4), and other ways to put them together."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from deconvnet import cutting, inference, parallel, samples, voc
from deconvnet.examples import Images
from deconvnet.params import Inference
from deconvnet.paths import STEPS
from deconvnet.samples import Samples

RULES = ("maximum", "sum", "mean")


def predict(net: nn.Module, images: Images, names: list[str], proposals: dict, settings: Inference) -> dict:
    """{name: label map}, as inference.score_all makes them but kept in memory."""

    def one(name: str) -> np.ndarray:
        image = images[name][0]
        windows = inference.choose_windows(proposals[name], image.shape[:2], settings)
        scores = inference.score_windows(net, image, windows, settings.batch, settings.antialias)
        return scores.argmax(dim=0).byte().cpu().numpy()

    return dict(zip(names, parallel.in_lanes(one, names, "windows"), strict=True))


def by_size(windows: np.ndarray) -> np.ndarray:
    """The order from the largest window to the smallest, in which figure 6 adds them; equal ones keep their order."""
    sides = windows[:, 2:] - windows[:, :2]
    return np.argsort(-sides.prod(axis=1), kind="stable")


@torch.inference_mode()
def grow(
    scores: torch.Tensor, windows: np.ndarray, shape: tuple[int, int], counts: list[int], antialias: bool = False
) -> Iterator[np.ndarray]:
    """Label map (H, W) after each of `counts` windows, by the maximum; with fewer windows than that, after all."""
    canvas = cutting.blank(scores.shape[1], shape, scores.device)
    done = 0
    for count in sorted(counts):
        for i in range(done, min(count, len(windows))):
            cutting.paste_maximum(canvas, scores[i], windows[i], antialias)
        done = max(done, min(count, len(windows)))
        yield canvas.argmax(dim=0).byte().cpu().numpy()


@torch.inference_mode()
def total(
    scores: torch.Tensor, windows: np.ndarray, shape: tuple[int, int], antialias: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of all windows' raw scores (21, H, W), and the number of windows over each pixel (H, W)."""
    summed = cutting.blank(scores.shape[1], shape, scores.device)
    covered = torch.zeros(shape, device=scores.device)
    for score, box in zip(scores, windows, strict=True):
        rows, columns, part = cutting.resized(score, box, shape, antialias)
        summed[:, rows, columns] += part
        covered[rows, columns] += 1
    return summed, covered


def aggregate(
    scores: torch.Tensor, windows: np.ndarray, shape: tuple[int, int], rule: str, antialias: bool = False
) -> torch.Tensor:
    """(21, H, W) raw scores by `rule`; 0 where no window lies.

    maximum: over a base of 0, as in the release. sum: of all windows over a pixel. mean: their sum by their number,
    which the paper names beside the maximum.
    """
    if rule not in RULES:
        raise ValueError(f"The rule of aggregation is one of {', '.join(RULES)}, not {rule}.")
    if rule == "maximum":
        return torch.cat(list(inference.maximum(scores, windows, shape, antialias)))
    summed, covered = total(scores, windows, shape, antialias)
    return summed / covered.clamp(min=1) if rule == "mean" else summed


def study(
    net: nn.Module, images: Images, names: list[str], proposals: dict, settings: Inference, counts: list[int]
) -> tuple[Samples, dict[str, np.ndarray]]:
    """Tallies as windows come in, the best first or the largest of those that inference uses first, and by each rule;
    and {name: label maps (counts, H, W)} of the best first.
    """
    more = settings.model_copy(update={"windows": max(counts)})

    def one(name: str) -> tuple[np.ndarray, Samples]:
        image, truth, _ = images[name]
        shape, antialias = truth.shape, settings.antialias
        windows = inference.choose_windows(proposals[name], shape, more)
        (scores,) = inference.scores_of(net, [image], [windows], settings.batch, antialias)
        best = np.stack(list(grow(scores, windows, shape, counts, antialias)))
        used, kept = windows[: settings.windows], scores[: settings.windows]
        order, fewer = by_size(used), [n for n in counts if n <= settings.windows]
        *largest, highest = grow(kept[order], used[order], shape, [*fewer, settings.windows], antialias)
        summed, covered = total(kept, used, shape, antialias)
        labelled = {f"best/{n}": m for n, m in zip(counts, best, strict=True)}
        labelled |= {f"largest/{n}": m for n, m in zip(fewer, largest, strict=True)}
        labelled["rule/maximum"] = highest  # the order makes no difference
        for rule, scored in (("sum", summed), ("mean", summed / covered.clamp(min=1))):
            labelled[f"rule/{rule}"] = scored.argmax(dim=0).byte().cpu().numpy()
        return best, {f"windows/{key}": samples.tally(truth, predicted) for key, predicted in labelled.items()}

    maps, tallies = zip(*parallel.in_lanes(one, names, "more and more windows"), strict=True)
    return {key: np.stack([t[key] for t in tallies]) for key in tallies[0]}, dict(zip(names, maps, strict=True))


def save_steps(maps: dict[str, np.ndarray]) -> None:
    """The label maps of `study`, those of an image below each other in one picture: data/steps/<name>.png."""
    STEPS.mkdir(parents=True, exist_ok=True)
    for name, steps in maps.items():
        voc.save_mask(STEPS / f"{name}.png", np.concatenate(steps))


def figure6_row(
    net: nn.Module, picture: tuple, proposals: np.ndarray, settings: Inference, counts: list[int]
) -> list[np.ndarray]:
    """The image, its label map after each of `counts` windows, the largest first, and its truth."""
    image, truth, _ = picture
    windows = inference.choose_windows(proposals, truth.shape, settings)
    order = by_size(windows)
    (scores,) = inference.scores_of(net, [image], [windows[order]], settings.batch, settings.antialias)
    return [image, *grow(scores, windows[order], truth.shape, counts, settings.antialias), truth]

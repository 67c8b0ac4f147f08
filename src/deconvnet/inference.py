"""From images to maps of 21 raw scores: DeconvNet window by window (section 5 of the paper), FCN-8s at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from deconvnet import boxes, checkpoints, cutting, machine, maps, parallel, voc
from deconvnet.files import digest, finished, stamps
from deconvnet.folding import for_inference
from deconvnet.params import Inference
from deconvnet.paths import VOC

GROUP = 4  # images whose windows share batches
ELEMENTS = 2**22  # of a map that are put together at once: all classes of a 500×375 photograph, one of a huge picture's


def choose_windows(proposals: np.ndarray, shape: tuple[int, int], settings: Inference) -> np.ndarray:
    """The extended boxes of the best `settings.windows` proposals: int (N, 4).

    Boxes whose shorter side, once extended, is under `min_side` are skipped before the count, as in the release. An
    image without proposals is taken as one window.
    """
    extended = boxes.extend(proposals[:, :4], settings.context, settings.square)
    shorter = (extended[:, 2:] - extended[:, :2]).min(axis=1)
    chosen = extended[shorter >= settings.min_side][: settings.windows]
    return chosen if len(chosen) else np.array([[0, 0, shape[1], shape[0]]])


@torch.inference_mode()
def scores_of(
    net: nn.Module, images: list[np.ndarray], windows: list[np.ndarray], batch: int, antialias: bool = False
) -> tuple[torch.Tensor, ...]:
    """The raw scores of each image's windows, float (N, 21, s, s); all images' windows go through `net` together."""
    device = machine.device()
    cut = [cutting.cut_windows(i, w, net.size, antialias, device) for i, w in zip(images, windows, strict=True)]
    parts = [net(part.contiguous(memory_format=torch.channels_last)) for part in torch.cat(cut).split(batch)]
    return torch.cat(parts).split([len(w) for w in windows])


@torch.inference_mode()
def maximum(
    scores: torch.Tensor, windows: np.ndarray, shape: tuple[int, int], antialias: bool = False
) -> Iterator[torch.Tensor]:
    """The pixel-wise maximum of the windows' raw scores over a zero base, float32 (c, H, W) for some classes at a time.

    The zero base is the release's: a negative score never wins, and a pixel that no window covers is background.
    Softmax comes after the aggregation, never before. Classes do not meet here, so memory is bounded by a few of them.
    """
    for part in scores.split(max(ELEMENTS // (shape[0] * shape[1]), 1), dim=1):
        canvas = cutting.blank(part.shape[1], shape, part.device)
        for score, box in zip(part, windows, strict=True):
            cutting.paste_maximum(canvas, score, box, antialias)
        yield canvas


def score_windows(
    net: nn.Module, image: np.ndarray, windows: np.ndarray, batch: int, antialias: bool = False
) -> torch.Tensor:
    """RGB uint8 (H, W, 3) → float (21, H, W): `maximum` over the windows of one image."""
    (scores,) = scores_of(net, [image], [windows], batch, antialias)
    return torch.cat(list(maximum(scores, windows, image.shape[:2], antialias)))


@torch.inference_mode()
def score_image(net: nn.Module, image: np.ndarray, canvas: int | None = None) -> torch.Tensor:
    """RGB uint8 (H, W, 3) → float (21, H, W): FCN-8s on the whole image, not resized.

    With `canvas`, a smaller image is first padded right and below to that side with the network's mean, which becomes
    0: so the release does, to 500×500.
    """
    height, width = image.shape[:2]
    x = torch.from_numpy(np.ascontiguousarray(image)).to(machine.device()).permute(2, 0, 1)[None].float()
    if canvas:
        padded = net.encoder.mean.repeat(1, 1, max(canvas, height), max(canvas, width))
        padded[..., :height, :width] = x
        x = padded
    return net(x.contiguous(memory_format=torch.channels_last))[0, :, :height, :width].float()


def score_all(
    model: str, net: nn.Module, names: list[str], proposals: dict[str, np.ndarray], settings: Inference
) -> None:
    """Score map and label map of every image by `model`, deconvnet or fcn8s; those of a killed run are kept.

    Maps are written behind, and images are read ahead on a GPU, on a CPU beside another group's work: the network
    waits for neither.
    """

    def made_from() -> dict[str, str]:
        return {
            "settings": digest(settings.model_dump(mode="json"), machine.precision()),
            "weights": digest(*net.state_dict().values()),
            "images": digest(stamps(voc.image_path(VOC, name) for name in names)),
            "proposals": digest(*(proposals[name] for name in names)) if model == "deconvnet" else "",
        }

    outputs = {path(model, name).parent for path in (maps.scores_path, maps.prediction_path) for name in names}
    checkpoints.claim(f"Scores of {model}", made_from, outputs)
    # A group is done whole or not at all: in other batches its scores could differ in their last digits.
    groups = [names[i : i + GROUP] for i in range(0, len(names), GROUP)]
    groups = [group for group in groups if not all(finished(maps.prediction_path(model, name)) for name in group)]
    found = [{name: proposals.get(name) for name in group} for group in groups]
    unit = f"{GROUP} images"
    if machine.cluster():
        task = partial(score_on_cluster, model, made_from()["weights"], settings)
        for _ in parallel.over(task, found, model, unit):
            pass
    elif machine.device().type == "cpu":
        task = partial(score_groups, model, for_inference(net), settings)
        for _ in parallel.in_lanes(task, [[group] for group in found], model, unit):
            pass
    else:
        score_groups(model, for_inference(net), settings, tqdm(found, desc=model, unit=unit, mininterval=1))


def score_groups(model: str, net: nn.Module, settings: Inference, groups: Iterable[dict[str, np.ndarray]]) -> None:
    """Scores images group by group, each group {name: proposals}, and writes both maps of each image."""

    def read(group: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        return group, [voc.read_image(VOC, name) for name in group]

    def scored(images: list[np.ndarray], proposals: Iterable[np.ndarray]) -> list[Iterable[torch.Tensor]]:
        """The maps of some images, each in parts of some classes."""
        if model == "fcn8s":
            return [[score_image(net, image, settings.canvas)] for image in images]
        windows = [choose_windows(p, i.shape[:2], settings) for p, i in zip(proposals, images, strict=True)]
        scores = scores_of(net, images, windows, settings.batch, settings.antialias)
        return [maximum(s, w, i.shape[:2], settings.antialias) for s, w, i in zip(scores, windows, images, strict=True)]

    with ThreadPoolExecutor(1) as writer:
        behind = deque()

        def later(write: Callable, *arguments) -> None:
            behind.append(writer.submit(write, *arguments))
            while len(behind) > GROUP:
                behind.popleft().result()

        def add(file: maps.ScoreFile, part: torch.Tensor) -> None:
            file.add(part.cpu().numpy())  # here the writer waits for a GPU, not who gives it work

        for group, images in ahead(read, groups):
            for name, parts in zip(group, scored(images, group.values()), strict=True):
                file = maps.ScoreFile(model, name)
                for part in parts:
                    later(add, file, part)
                later(file.close)
        for written in behind:
            written.result()


@lru_cache(maxsize=1)
def trained(model: str, weights: str) -> nn.Module:
    """The network of the stage before, read from models/ once in a process; `weights`, their digest, tells it from that
    of an earlier run, which a worker outlives.
    """
    from deconvnet import backbone, params

    make = {"deconvnet": backbone.make_deconvnet, "fcn8s": backbone.make_fcn}[model]
    return for_inference(backbone.load(make(params.load()), model))


def score_on_cluster(model: str, weights: str, settings: Inference, group: dict[str, np.ndarray]) -> None:
    """What a worker does with one group: the files that it writes are all that it answers."""
    score_groups(model, trained(model, weights), settings, [group])


def ahead(read: Callable, items: Iterable) -> Iterator:
    """`read` of each item, in order; the next one is read while the last one is in use."""
    with ThreadPoolExecutor(1) as reader:
        coming = deque()
        for item in items:
            coming.append(reader.submit(read, item))
            if len(coming) > 1:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()

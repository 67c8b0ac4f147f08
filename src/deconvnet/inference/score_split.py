"""All images of a list: score maps and label maps on disk, by DeconvNet or FCN-8s, on a CPU, a GPU or a cluster."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from deconvnet.config import machine, params
from deconvnet.config.paths import VOC
from deconvnet.config.schema import Inference
from deconvnet.data import voc
from deconvnet.images import store
from deconvnet.inference.aggregate import aggregate_maximum, score_crops, score_image, select_proposals
from deconvnet.networks import build, weights
from deconvnet.networks.fuse import for_inference
from deconvnet.utils import parallel, resume
from deconvnet.utils.files import file_stamps, fingerprint, is_complete

GROUP_SIZE = 4  # images whose proposals share batches
Group = dict[str, np.ndarray | None]  # {image: its proposals}
MAKE = {"deconvnet": build.make_deconvnet, "fcn8s": build.make_fcn}


def score_split(
    model: str, net: nn.Module, names: list[str], proposals: dict[str, np.ndarray], settings: Inference
) -> None:
    """Writes the score map and label map of every image by `model`, deconvnet or fcn8s; an interrupted call resumes."""

    def inputs() -> dict[str, str]:
        return {
            "settings": fingerprint(settings.model_dump(mode="json"), machine.precision()),
            "weights": fingerprint(*net.state_dict().values()),
            "images": fingerprint(file_stamps(voc.image_path(VOC, name) for name in names)),
            "proposals": fingerprint(*(proposals[name] for name in names)) if model == "deconvnet" else "",
        }

    outputs = {path(model, name).parent for path in (store.scores_path, store.prediction_path) for name in names}
    resume.resume_dir(f"Scores of {model}", inputs, outputs)
    # A group is done as a whole: in other batches the last digits of its scores could differ.
    groups = [names[i : i + GROUP_SIZE] for i in range(0, len(names), GROUP_SIZE)]
    groups = [group for group in groups if not all(is_complete(store.prediction_path(model, name)) for name in group)]
    groups = [{name: proposals.get(name) for name in group} for group in groups]
    unit = f"{GROUP_SIZE} images"
    if machine.cluster():
        task = partial(score_on_cluster, model, inputs()["weights"], settings)
        done = parallel.process_map(task, groups, model, unit)
    elif machine.device().type == "cpu":
        task = partial(score_groups, model, for_inference(net), settings)
        done = parallel.thread_map(task, [[group] for group in groups], model, unit)
    else:
        done = []
        score_groups(model, for_inference(net), settings, tqdm(groups, desc=model, unit=unit, mininterval=1))
    for _ in done:
        pass


def score_groups(model: str, net: nn.Module, settings: Inference, groups: Iterable[Group]) -> None:
    """Scores images group by group and writes both maps of each. Images are read ahead and maps are written behind, so
    that the network does not wait for the disk.
    """

    def read(group: Group) -> tuple[Group, list[np.ndarray]]:
        return group, [voc.read_image(VOC, name) for name in group]

    def write(name: str, scores: torch.Tensor) -> None:
        store.save_scores(model, name, scores.cpu().numpy())  # the writer, not the network, waits for a GPU

    with ThreadPoolExecutor(1) as writer:
        pending = deque()
        for group, images in read_ahead(read, groups):
            for name, scores in zip(group, score_group(model, net, settings, group, images), strict=True):
                pending.append(writer.submit(write, name, scores))
                while len(pending) > GROUP_SIZE:
                    pending.popleft().result()
        for written in pending:
            written.result()


def score_group(
    model: str, net: nn.Module, settings: Inference, group: Group, images: list[np.ndarray]
) -> Iterator[torch.Tensor]:
    """The raw scores (21, H, W) of each image of a group."""
    if model == "fcn8s":
        yield from (score_image(net, image, settings.fcn_canvas) for image in images)
        return
    selected = [select_proposals(p, i.shape[:2], settings) for p, i in zip(group.values(), images, strict=True)]
    scores = score_crops(net, images, selected, settings.batch_size, settings.antialias)
    for image, boxes, part in zip(images, selected, scores, strict=True):
        yield aggregate_maximum(part, boxes, image.shape[:2], settings.antialias)


@lru_cache(maxsize=1)
def load_trained(model: str, fingerprint: str) -> nn.Module:
    """The trained network, loaded once per process; the fingerprint of its weights tells it from that of an
    earlier run of the same worker.
    """
    return for_inference(weights.load(MAKE[model](params.load()), model))


def score_on_cluster(model: str, fingerprint: str, settings: Inference, group: Group) -> None:
    """A worker's task: one group. Its results are the files that it writes."""
    score_groups(model, load_trained(model, fingerprint), settings, [group])


def read_ahead(read: Callable, items: Iterable) -> Iterator:
    """`read` of each item, in order; the next one is read while the last one is in use."""
    with ThreadPoolExecutor(1) as reader:
        pending = deque()
        for item in items:
            pending.append(reader.submit(read, item))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

"""From an image to a map of 21 raw scores: DeconvNet window by window (section 5 of the paper), FCN-8s at once."""

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from deconvnet import boxes, checkpoints, machine, maps, voc
from deconvnet.files import digest, stamps
from deconvnet.params import Inference
from deconvnet.paths import VOC


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
def score_windows(
    net: nn.Module, image: np.ndarray, windows: np.ndarray, batch: int, antialias: bool = False
) -> torch.Tensor:
    """RGB uint8 (H, W, 3) → float (21, H, W): the pixel-wise maximum of the windows' raw scores over a zero base.

    The zero base is the release's: a negative score never wins, and a pixel that no window covers is background.
    Softmax comes after the aggregation, never before.
    """
    device, size = machine.device(), net.size
    canvas = torch.zeros(net.score.out_channels, *image.shape[:2], device=device)
    for start in range(0, len(windows), batch):
        part = windows[start : start + batch]
        inputs = boxes.windows(image, part, size, antialias).to(device, memory_format=torch.channels_last)
        for scores, box in zip(net(inputs), part, strict=True):
            boxes.paste_maximum(canvas, scores.contiguous(), box, antialias)
    return canvas


@torch.inference_mode()
def score_image(net: nn.Module, image: np.ndarray, canvas: int | None = None) -> torch.Tensor:
    """RGB uint8 (H, W, 3) → float (21, H, W): FCN-8s on the whole image, not resized.

    With `canvas`, a smaller image is first padded right and below to that side with the network's mean, which becomes
    0: so the release does, to 500×500.
    """
    height, width = image.shape[:2]
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float().to(machine.device())
    if canvas:
        padded = net.encoder.mean.repeat(1, 1, max(canvas, height), max(canvas, width))
        padded[..., :height, :width] = x
        x = padded
    return net(x.contiguous(memory_format=torch.channels_last))[0, :, :height, :width]


def score_all(
    model: str, net: nn.Module, names: list[str], proposals: dict[str, np.ndarray], settings: Inference
) -> None:
    """Score map and label map of every image by `model`, deconvnet or fcn8s; those of a killed run are kept."""

    def made_from() -> dict[str, str]:
        return {
            "settings": digest(settings.model_dump(mode="json")),
            "weights": digest(*net.state_dict().values()),
            "images": digest(stamps(voc.image_path(VOC, name) for name in names)),
            "proposals": digest(*(proposals[name] for name in names)) if model == "deconvnet" else "",
        }

    outputs = {path(model, name).parent for path in (maps.scores_path, maps.prediction_path) for name in names}
    checkpoints.claim(f"Scores of {model}", made_from, outputs)
    for name in tqdm(names, desc=model, unit="image", mininterval=1):
        if maps.prediction_path(model, name).is_file():
            continue
        image = voc.read_image(VOC, name)
        if model == "deconvnet":
            windows = choose_windows(proposals[name], image.shape[:2], settings)
            scores = score_windows(net, image, windows, settings.batch, settings.antialias)
        else:
            scores = score_image(net, image, settings.canvas)
        scores = scores.cpu().numpy()
        maps.save_scores(model, name, scores)
        maps.save_prediction(model, name, scores)

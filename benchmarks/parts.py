"""The parts of `make bench` that need more than a few lines: a training step, score maps on disk, scaling curves."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import ratio, side_by_side

from deconvnet import backbone, crf, ensemble, examples, folding, inference, maps, metrics, params, paths, training, voc
from deconvnet.errors import UserError
from deconvnet.proposals import edge_boxes, gradient_edges, load_proposals

UPDATES, IMAGES = 24, 40


def training_step(folder: Path, names: list[str]) -> dict:
    """Updates of the default's stage 2 as `training.train` makes them, against the same step on one resident batch."""
    settings = params.load()
    solver = settings.stage2.model_copy(update={"updates": UPDATES})
    images, objects = examples.Images(folder, names), voc.objects(folder, names)
    batches = examples.crop_batches(images, objects.assign(weight=1 / len(objects)), solver, settings.network.size)
    net = backbone.make_deconvnet(settings).to(training.machine.device(), memory_format=torch.channels_last)
    there = tuple(part.to(training.machine.device()) for part in batches[0])

    def resident() -> None:
        optimizer = training.make_optimizer(net.train(), solver)
        x = there[0].contiguous(memory_format=torch.channels_last)
        for _ in range(UPDATES):
            optimizer.zero_grad()
            training.loss_of(net(x), there[1]).backward()
            optimizer.step()

    seconds = side_by_side({"loader": lambda: training.train(net, batches, solver), "resident": resident})
    found = ratio(seconds["loader"], seconds["resident"])
    return {
        "vs_resident_batch": found["median"],
        "spread": found,
        "updates_per_second": UPDATES / float(np.median(seconds["loader"])),
        "batch": solver.batch,
    }


def trained() -> tuple[torch.nn.Module, params.Params] | None:
    """The default's DeconvNet, or None where `make repro` has not trained it."""
    settings = params.load()
    try:
        return backbone.load(backbone.make_deconvnet(settings), "deconvnet"), settings
    except UserError:
        return None


def size_on_disk(scores: np.ndarray) -> int:
    """Bytes of the file that a score map becomes."""
    with tempfile.TemporaryDirectory() as folder:
        kept, maps.SCORES, maps.PREDICTIONS = (maps.SCORES, maps.PREDICTIONS), Path(folder), Path(folder)
        try:
            maps.save_scores("deconvnet", "photograph", scores)
            return maps.scores_path("deconvnet", "photograph").stat().st_size
        finally:
            maps.SCORES, maps.PREDICTIONS = kept


def scores_on_disk(images: list[np.ndarray]) -> dict:
    """Megabytes of a photograph's score map, and what storing it costs: points of mean IoU of the ensemble on dev."""
    if (found := trained()) is None:
        return {"megabytes_per_image": None, "why": "models/ is empty: make repro first"}
    net, settings = found
    ready = folding.for_inference(net)
    sizes = []
    for image in images:
        windows = inference.choose_windows(edge_boxes(gradient_edges(image), settings.proposals), image.shape[:2],
                                           settings.inference)  # fmt: skip
        scores = inference.score_windows(ready, image, windows, settings.inference.batch).cpu().numpy()
        sizes.append(size_on_disk(scores) / 1e6)
    names, boxes = voc.read_list(paths.VOC, "dev")[:IMAGES], load_proposals("dev")
    fcn = folding.for_inference(backbone.load(backbone.make_fcn(settings), "fcn8s"))
    exact, stored = [], []
    for name in names:
        image, truth = voc.read_image(paths.VOC, name), voc.read_labels(paths.VOC, name)
        windows = inference.choose_windows(boxes[name], image.shape[:2], settings.inference)
        pair = [inference.score_windows(ready, image, windows, settings.inference.batch).cpu().numpy()]
        pair.append(inference.score_image(fcn, image).cpu().numpy())
        kept = [maps.unpacked(*maps.packed(scores)) for scores in pair]
        for found, scores in ((exact, pair), (stored, kept)):
            together = ensemble.combine(*scores, settings.ensemble.rule)
            found.append(metrics.confusion(truth, together.argmax(axis=0)))
    loss = 100 * (metrics.mean_iou(sum(exact)) - metrics.mean_iou(sum(stored)))
    return {
        "megabytes_per_image": float(np.mean(sizes)),
        "largest_megabytes": max(sizes),
        "raw_megabytes": 21 * images[0][..., 0].size * 4 / 1e6,
        "points_lost": loss,
        "images": len(images),
        "dev_images": len(names),
    }


def line(x: list[float], seconds: list[float]) -> dict:
    """Seconds against x, the line through them, and the share of the variance that it explains."""
    slope, offset = np.polyfit(x, seconds, 1)
    rest = np.array(seconds) - (slope * np.array(x) + offset)
    return {"x": x, "seconds": seconds, "slope": slope, "offset": offset, "r2": 1 - rest.var() / np.var(seconds)}


def timed(work: Callable[[], object]) -> float:
    return float(np.median(side_by_side({"it": work}, repeats=3)["it"]))


def curves(images: list[np.ndarray], cores: int) -> dict:
    """Seconds of inference with the default's network against images, windows an image and pixels; of the CRF against
    pixels.
    """
    settings = params.load()
    net, batch = folding.for_inference(backbone.make_deconvnet(settings).eval()), settings.inference.batch
    rng, image = np.random.default_rng(0), images[0]

    def windows(count: int, shape: tuple[int, int]) -> np.ndarray:
        corner = (rng.random((count, 2)) * 0.6 * np.array(shape[::-1])).astype(int)
        return np.hstack([corner, corner + int(0.4 * min(shape))])

    def score(pictures: list[np.ndarray], count: int) -> Callable[[], object]:
        boxes = [windows(count, p.shape[:2]) for p in pictures]
        return lambda: [inference.score_windows(net, p, b, batch) for p, b in zip(pictures, boxes, strict=True)]

    counts, per_image, scales = [1, 2, 4, 8], [10, 25, 50, 100], [0.25, 0.5, 0.75, 1.0]
    parts = [image[: int(375 * s), : int(500 * s)] for s in scales]
    pixels = [float(p[..., 0].size) for p in parts]
    kernel = params.Kernel(**params.compose("voc2012")["crf"]["candidates"][0])
    maps_of = [rng.dirichlet(np.ones(21), p.shape[:2]).transpose(2, 0, 1) for p in parts]
    return {
        "images": line(counts, [timed(score(images[:n], 50)) for n in counts]),
        "windows": line(per_image, [timed(score([image], n)) for n in per_image]),
        "pixels": line(pixels, [timed(score([p], 50)) for p in parts]),
        "crf_pixels": line(pixels, [timed(lambda p=p, m=m: crf.refine(p, m, kernel, 10, False))
                                    for p, m in zip(parts, maps_of, strict=True)]),
    }  # fmt: skip

"""The parts of `make bench` that need more than a few lines: a training step, score maps on disk, scaling curves."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import clock, has_bf16, here, in_turn, peak_gigabytes, precise, ratio, side_by_side

from deconvnet.config import machine, params, paths, schema
from deconvnet.config.errors import UserError
from deconvnet.data import voc
from deconvnet.evaluation import metrics
from deconvnet.images import batches, store
from deconvnet.images.store import load_proposals
from deconvnet.inference import aggregate, crf, ensemble
from deconvnet.networks import build, weights
from deconvnet.proposals.edge_boxes import find_boxes
from deconvnet.proposals.edges import gradient_edges
from deconvnet.training import examples, loop
from deconvnet.training.solver import make_optimizer

UPDATES, FIRST = (128 if machine.device().type == "cuda" else 32), 8  # the first, whose seconds do not count
# The methods that each way concerns: the networks' own label maps are of their scores before these are stored.
CONCERNED = {
    "stored": ("edeconvnet", "deconvnet_crf", "edeconvnet_crf"),
    "bf16": ("deconvnet", "fcn8s", "edeconvnet"),
}


def resident_updates(
    net: torch.nn.Module, batch: tuple, solver: schema.Solver, iterations: int, first: int = 0
) -> float:
    """Seconds an update, forward, backward and step, on a batch (images, labels) that lies on the device; without the
    `first` ones.
    """
    fabric = loop.Fabric(accelerator=machine.device().type, devices=1, precision=machine.precision())
    model, optimizer = fabric.setup(net, make_optimizer(net, solver))
    images, labels = (
        part.unflatten(0, (solver.micro_batches, -1)).split(machine.micro_batches_at_once(solver.micro_batches))
        for part in batch
    )
    for number in range(iterations):
        if number == first:
            started = clock()
        optimizer.zero_grad()
        for some in zip(images, labels, strict=True):
            fabric.backward(loop.micro_batch_losses(model, *some).sum() / solver.micro_batches)
        optimizer.step()
    return (clock() - started) / (iterations - first)


def loaded_updates(net: torch.nn.Module, batches: batches.Batches, solver: schema.Solver) -> float:
    """Seconds an update of `training.train`, without what comes once in its thousands, before and after them, and
    without the checkpoint of each minute.
    """
    at = {}
    loop.train(net, batches, solver, log=lambda step, _: at.update({step: clock()}), points=solver.iterations // FIRST)
    return (at[solver.iterations] - at[FIRST]) / (solver.iterations - FIRST)


def training_step(folder: Path, names: list[str]) -> dict:
    """Updates of the default's stage 2 as `training.train` makes them, against the same step on one resident batch."""
    settings = params.load()
    solver = settings.stage2.model_copy(update={"iterations": UPDATES})
    images, objects = examples.Images(folder, names), voc.objects(folder, names)
    batches = examples.crop_batches(images, objects.assign(weight=1 / len(objects)), solver, settings.network.size)
    net = build.make_deconvnet(settings).to(machine.device(), memory_format=torch.channels_last)
    there = tuple(part.to(machine.device()) for part in batches[0])

    variants = {
        "loader": lambda: loaded_updates(net, batches, solver),
        "resident": lambda: resident_updates(net.train(), there, solver, UPDATES, FIRST),
    }
    seconds = in_turn(variants)
    found = ratio(seconds["loader"], seconds["resident"])
    return {
        "vs_resident_batch": found["median"],
        "spread": found,
        "updates_per_second": 1 / float(np.median(seconds["loader"])),
        "batch": solver.batch_size,
        "peak_gigabytes": peak_gigabytes(),
    }


def trained() -> tuple[list[torch.nn.Module], schema.Params] | None:
    """The default's DeconvNet and FCN-8s, or None where `make repro` has not trained them."""
    settings = params.load()
    made = {"deconvnet": build.make_deconvnet, "fcn8s": build.make_fcn}
    try:
        return [weights.load(make(settings), name) for name, make in made.items()], settings
    except UserError:
        return None


def size_on_disk(scores: np.ndarray) -> int:
    """Bytes of the file that a score map becomes."""
    with tempfile.TemporaryDirectory() as folder:
        kept, store.SCORES, store.PREDICTIONS = (store.SCORES, store.PREDICTIONS), Path(folder), Path(folder)
        try:
            store.save_scores("deconvnet", "photograph", scores)
            return store.scores_path("deconvnet", "photograph").stat().st_size
        finally:
            store.SCORES, store.PREDICTIONS = kept


def size_of_maps(images: list[np.ndarray]) -> dict | None:
    """Megabytes of a photograph's score map, by the default's DeconvNet."""
    if (found := trained()) is None:
        print("models/ is empty: score maps and bfloat16 are not measured. make repro first")
        return None
    (net, _), settings = found
    ready, sizes = precise("32-true", net), []
    for image in images:
        windows = aggregate.select_proposals(find_boxes(gradient_edges(image), settings.proposals), image.shape[:2],
                                           settings.inference)  # fmt: skip
        scores = aggregate.score_proposals(ready, image, windows, settings.inference.batch_size).cpu().numpy()
        sizes.append(size_on_disk(scores) / 1e6)
    return {
        "megabytes_per_image": float(np.mean(sizes)),
        "largest_megabytes": max(sizes),
        "raw_megabytes": 21 * images[0][..., 0].size * 4 / 1e6,
        "images": len(images),
    } | here()


def points_lost() -> dict | None:
    """Points of mean IoU on val that each method loses by storing score maps, and by bfloat16."""
    if (found := trained()) is None:
        return None
    nets, settings = found
    chosen = json.loads((paths.REPORTS / "crf.json").read_text())
    kernels = {method: schema.Kernel(**of["chosen"]) for method, of in chosen.items()}
    names, boxes = voc.read_list(paths.VOC, "val"), load_proposals("val")
    ready = {"exact": "32-true"} | ({"bf16": "bf16-mixed"} if has_bf16() else {})
    ready = {way: [precise(precision, net) for net in nets] for way, precision in ready.items()}
    confusions = defaultdict(int)
    for name in names:
        image, truth = voc.read_image(paths.VOC, name), voc.read_labels(paths.VOC, name)
        windows = aggregate.select_proposals(boxes[name], image.shape[:2], settings.inference)
        ways = {
            way: [aggregate.score_proposals(net, image, windows, settings.inference.batch_size).float().cpu().numpy(),
                  aggregate.score_image(fcn, image).cpu().numpy()]
            for way, (net, fcn) in ready.items()
        }  # fmt: skip
        ways["stored"] = [store.unpacked(*store.packed(scores)) for scores in ways["exact"]]
        for way, (deconvnet, fcn8s) in ways.items():
            ensembled = ensemble.combine(deconvnet, fcn8s, settings.ensemble.rule)
            found = {"deconvnet": deconvnet, "fcn8s": fcn8s, "edeconvnet": ensembled}
            if way != "bf16":
                for method, given in (("deconvnet", ensemble.probabilities(deconvnet)), ("edeconvnet", ensembled)):
                    wanted = kernels[method], settings.crf.iterations, settings.crf.normalise
                    found[f"{method}_crf"] = crf.refine(image, given, *wanted)
            for method, scores in found.items():
                confusions[way, method] += metrics.confusion(truth, scores.argmax(axis=0))
    points = {key: 100 * metrics.mean_iou(matrix) for key, matrix in confusions.items()}
    lost = {way: {m: points["exact", m] - points[way, m] for m in CONCERNED[way]} for way in ways if way != "exact"}
    of = {"images": len(names)} | here()
    return {way: found | {"most": max(found.values(), key=abs)} | of for way, found in lost.items()}


def line(x: list[float], seconds: list[float]) -> dict:
    """Seconds against x, the line through them, and the share of the variance that it explains."""
    slope, offset = np.polyfit(x, seconds, 1)
    rest = np.array(seconds) - (slope * np.array(x) + offset)
    return {"x": x, "seconds": seconds, "slope": slope, "offset": offset, "r2": 1 - rest.var() / np.var(seconds)}


def timed(work: Callable[[], object]) -> float:
    return float(np.median(side_by_side({"it": work}, repeats=3)["it"]))


def curves(images: list[np.ndarray]) -> dict:
    """Seconds of inference with the default's network against images, windows an image and pixels; of the CRF against
    pixels.
    """
    settings = params.load()
    net, batch = precise("32-true", build.make_deconvnet(settings).eval()), settings.inference.batch_size
    rng, image = np.random.default_rng(0), images[0]

    def windows(count: int, shape: tuple[int, int]) -> np.ndarray:
        corner = (rng.random((count, 2)) * 0.6 * np.array(shape[::-1])).astype(int)
        return np.hstack([corner, corner + int(0.4 * min(shape))])

    def score(pictures: list[np.ndarray], count: int) -> Callable[[], object]:
        boxes = [windows(count, p.shape[:2]) for p in pictures]
        return lambda: [aggregate.score_proposals(net, p, b, batch) for p, b in zip(pictures, boxes, strict=True)]

    counts, per_image, scales = [1, 2, 4, 8], [10, 25, 50, 100], [0.25, 0.5, 0.75, 1.0]
    parts = [image[: int(375 * s), : int(500 * s)] for s in scales]
    pixels = [p[..., 0].size / 1e6 for p in parts]
    kernel = schema.Kernel(**params.compose("voc2012")["crf"]["candidates"][0])
    maps_of = [rng.dirichlet(np.ones(21), p.shape[:2]).transpose(2, 0, 1) for p in parts]
    return {
        "images": line(counts, [timed(score(images[:n], 50)) for n in counts]),
        "windows": line(per_image, [timed(score([image], n)) for n in per_image]),
        "pixels": line(pixels, [timed(score([p], 50)) for p in parts]),
        "crf_pixels": line(pixels, [timed(lambda p=p, m=m: crf.refine(p, m, kernel, 10, False))
                                    for p, m in zip(parts, maps_of, strict=True)]),
    }  # fmt: skip

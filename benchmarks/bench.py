"""How fast the pipeline is on this machine, as ratios: `make bench` writes reports/benchmarks.json and .md.

Photographs are generated scenes. Weights are random, except in `score_maps`, which needs models/ of `make repro`.
"""

import json
import tempfile
from collections import defaultdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from unittest.mock import patch

import cv2
import measure
import numpy as np
import torch
from measure import clock, in_turn, peak_gigabytes, precision, precisions, ratio, seconds
from page import page

from deconvnet.config import machine, params, paths
from deconvnet.config.schema import Crf, Inference, Kernel, Params, Proposals, Solver
from deconvnet.data import icon_scenes, voc
from deconvnet.evaluation import metrics
from deconvnet.images import store
from deconvnet.images.image_cache import Images
from deconvnet.inference import crf, ensemble
from deconvnet.inference.aggregate import score_image, score_proposals, select_proposals
from deconvnet.inference.score_split import MAKE
from deconvnet.networks import weights
from deconvnet.networks.fuse import for_inference
from deconvnet.proposals.edge_boxes import find_boxes
from deconvnet.proposals.edges import gradient_edges
from deconvnet.training import examples, loop
from deconvnet.utils.files import write_json

GPU = machine.device().type == "cuda"
PHOTOGRAPH = 500, 375  # px, width and height
ROUNDS, TASKS = 5, 4  # tasks of all workers together, at least
PROPOSALS, BATCH_SIZE = (50, 50) if GPU else (16, 8)
ITERATIONS, SKIPPED = 128 if GPU else 32, 8  # of a training; the first ones do not count


def propose(image: np.ndarray, settings: Proposals) -> np.ndarray:
    return find_boxes(gradient_edges(image), settings)


def refine(image: np.ndarray, path: Path, settings: Crf) -> np.ndarray:
    refined = crf.refine(image, np.load(path), settings.candidates[0], settings.iterations, settings.normalise)
    return refined.argmax(axis=0).astype(np.uint8)


def workers(paper: Params, folder: Path, image: np.ndarray) -> dict:
    """Arithmetic alone, proposals and CRF, with one worker for each core against one."""
    path, found, count = folder / "probabilities.npy", {}, machine.cores()
    np.save(path, np.random.default_rng(0).dirichlet(np.ones(21), image.shape[:2]).transpose(2, 0, 1))
    works = {"cores": (sum, range(20_000_000)), "proposals": (propose, image, paper.proposals),
             "crf": (refine, image, path, paper.crf)}  # fmt: skip
    # Not joblib (1.6.0): a worker that imports torch after its first task seems to leak, leaves, and its pool hung.
    start = partial(get_context("spawn").Pool, initializer=cv2.setNumThreads, initargs=(1,))
    with start(1) as one, start(count) as all_cores:
        for name, (function, *arguments) in works.items():
            tasks = [arguments] * count * -(-TASKS // count)  # as many for each worker
            pools = {"one": one, "all": all_cores}
            took = in_turn({n: partial(seconds, pool.starmap, function, tasks, 1) for n, pool in pools.items()}, ROUNDS)
            spread = ratio(took["one"], took["all"])
            found[name] = {"workers": count, "workers_speedup": spread["median"], "spread": spread}
    return found


def training(model: str, settings: Params, solver: Solver, folder: Path, name="fp32", compare=True) -> dict:
    """Seconds and memory of an iteration; `compare`: with the ratio to one on a preloaded batch, else it runs once."""
    solver = solver.model_copy(update={"iterations": ITERATIONS if compare else 1, "lr": 1e-6})  # low: none diverges
    net, names = MAKE[model](settings).to(machine.device()), voc.read_list(folder, "train")
    if model == "fcn8s":
        batches = examples.image_batches(Images(folder, names), names, solver, 2 ** len(settings.network.blocks))
    else:
        objects = examples.balanced(voc.objects(folder, names), balance=0)
        batches = examples.crop_batches(Images(folder, names), objects, solver, settings.network.size)
    found = {"precision": name, "batch_size": solver.batch_size}
    peak_gigabytes()
    if compare:
        batch = [part.to(machine.device()) for part in batches[0]]
        ways = {"loaded": None, "preloaded": [batch] * solver.iterations}
        with precision(name):
            took = in_turn({way: partial(iteration, net, batches, solver, them) for way, them in ways.items()}, ROUNDS)
        spread = ratio(took["loaded"], took["preloaded"])
        found |= {"seconds": median(took["loaded"]), "vs_resident_batch": spread["median"], "spread": spread}
    else:
        found["seconds"] = seconds(loop.train, net, batches, solver, name=name)
    return found | {"gigabytes": peak_gigabytes()}


def iteration(net: torch.nn.Module, batches: examples.Batches, solver: Solver, preloaded: list | None) -> float:
    """Seconds of an iteration of `loop.train`, after the first SKIPPED; `preloaded`: on these instead of `batches`."""
    at, loader = {}, loop.loader if preloaded is None else lambda *_: preloaded
    log, rows = lambda row: at.update({row["step"]: clock()}), solver.iterations // SKIPPED
    with patch.object(loop, "loader", loader):
        loop.train(net, batches, solver, log=log, num_rows=rows)
    return (at[solver.iterations] - at[SKIPPED]) / (solver.iterations - SKIPPED)


def inference(paper: Params, image: np.ndarray) -> dict:
    """The paper's network on a photograph, against the release's way and against the network alone."""
    proposals, names = propose(image, paper.proposals), precisions()
    proposals = select_proposals(proposals, image.shape[:2], paper.inference)[:PROPOSALS]
    plain = MAKE["deconvnet"](paper).eval().to(machine.device())
    crops = torch.zeros(len(proposals), 3, plain.size, plain.size, device=machine.device())
    batches = crops.contiguous(memory_format=torch.channels_last).split(BATCH_SIZE)
    ways = {"release": partial(seconds, measure.score_as_released, plain, image, proposals)}
    for name in names:
        with precision(name):
            net = for_inference(plain)
        alone = torch.inference_mode()(lambda net=net: [net(batch) for batch in batches])
        ways[name] = partial(seconds, score_proposals, net, image, proposals, BATCH_SIZE, name=name)
        ways[f"network {name}"] = partial(seconds, alone, name=name)
    took, found = in_turn(ways, ROUNDS), {"proposals": len(proposals), "batch_size": BATCH_SIZE}
    for name in names:
        found[f"vs_release_{name}"] = ratio(took["release"], took[name])
        found[f"vs_network_{name}"] = ratio(took[name], took[f"network {name}"])
    found |= {key: found[f"{key}_{names[-1]}"]["median"] for key in ("vs_release", "vs_network")}
    milliseconds = {name: 1e3 * median(values) / len(proposals) for name, values in took.items()}
    return {"inference": found | {"milliseconds_per_proposal": milliseconds}}


def score_maps(default: Params, images: list[np.ndarray]) -> dict:
    """Score maps of the default's networks on disk, and what storing them and bfloat16 cost on val."""
    nets, megabytes = {model: weights.load(make(default), model) for model, make in MAKE.items()}, []
    ready = {model: for_inference(net) for model, net in nets.items()}
    with tempfile.TemporaryDirectory() as name, patch.multiple(store, SCORES=Path(name), PREDICTIONS=Path(name)):
        for image in images:
            maps = score(ready, image, propose(image, default.proposals), default.inference)
            store.save_scores("deconvnet", "image", maps["deconvnet"])
            megabytes.append(store.scores_path("deconvnet", "image").stat().st_size / 1e6)
    kernels = {
        m: Kernel(**row["chosen"])
        for m, row in json.loads((paths.REPORTS / "crf.json").read_text(encoding="utf-8")).items()
    }
    lost = points_lost(nets, kernels, paths.VOC, store.load_proposals("val"), default)
    return {"scores": {"megabytes_per_image": mean(megabytes)}, "points_lost": lost}


def score(ready: dict, image: np.ndarray, boxes: np.ndarray, settings: Inference) -> dict[str, np.ndarray]:
    proposals = select_proposals(boxes, image.shape[:2], settings)
    deconvnet = score_proposals(ready["deconvnet"], image, proposals, settings.batch_size, settings.antialias)
    fcn8s = score_image(ready["fcn8s"], image, settings.fcn_canvas)
    return {"deconvnet": deconvnet.cpu().numpy(), "fcn8s": fcn8s.cpu().numpy()}


def points_lost(nets: dict, kernels: dict[str, Kernel], folder: Path, boxes: dict, settings: Params) -> dict:
    """Points of mean IoU on val that each method loses by stored score maps, and by bfloat16 if the device has it."""
    ready, confusions, lost, s = {}, defaultdict(int), defaultdict(dict), settings.crf
    for name in {"fp32", "bf16"}.intersection(precisions()):
        with precision(name):
            ready[name] = {model: for_inference(net) for model, net in nets.items()}
    for name in voc.read_list(folder, "val"):
        image, ground_truth = voc.read_image(folder, name), voc.read_labels(folder, name)
        ways = {way: score(ready[way], image, boxes[name], settings.inference) for way in ready}
        ways["stored"] = {model: np.multiply(*store.quantise(scores)) for model, scores in ways["fp32"].items()}
        for way, maps in ways.items():
            found = {model: ensemble.probabilities(scores) for model, scores in maps.items()}
            found["edeconvnet"] = ensemble.combine(maps["deconvnet"], maps["fcn8s"], settings.ensemble.rule)
            for method, kernel in kernels.items():
                found[f"{method}_crf"] = crf.refine(image, found[method], kernel, s.iterations, s.normalise)
            for method, probabilities in found.items():
                confusions[way, method] += metrics.confusion(ground_truth, probabilities.argmax(axis=0))
    for (way, method), matrix in confusions.items():
        if way == "bf16" or (way == "stored" and method not in nets):  # their own label maps are of unstored scores
            lost[way][method] = 100 * (metrics.mean_iou(confusions["fp32", method]) - metrics.mean_iou(matrix))
    return {way: row | {"most": max(row.values(), key=abs)} for way, row in lost.items()}


def run(default: Params, paper: Params, compare_paper: bool = GPU) -> dict:
    torch.manual_seed(0)
    result = {"machine": measure.this_machine(), "rounds": ROUNDS, "photograph": PHOTOGRAPH}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        icon_scenes.generate(folder, train=8, dev=1, val=1, width=PHOTOGRAPH[0], height=PHOTOGRAPH[1])
        icon_scenes.write(folder, "train", 7, *PHOTOGRAPH[::-1], seed=0)  # upright: FCN-8s pads to a square, as VOC
        images = [voc.read_image(folder, image) for image in voc.read_list(folder, "train")]
        result |= workers(paper, folder, images[0]) | inference(paper, images[0])
        result["training"] = training("deconvnet", default, default.stage2, folder)
        options = folder, precisions()[-1] if GPU else "fp32", compare_paper
        solvers = {"deconvnet": paper.stage2, "fcn8s": paper.fcn}
        result["paper_size"] = {m: training(m, paper, solver, *options) for m, solver in solvers.items()}
        if all((paths.MODELS / f"{model}.safetensors").is_file() for model in MAKE):
            result |= score_maps(default, images)
    return result


def main() -> None:
    target = paths.REPORTS / "benchmarks.json"
    write_json(target, run(params.load(), params.validate(params.compose("voc2012"), "voc2012")))
    target.with_suffix(".md").write_text(page(json.loads(target.read_text(encoding="utf-8"))), encoding="utf-8")
    print(target.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

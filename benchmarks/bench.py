"""How fast the pipeline is on this machine: make bench. Writes reports/benchmarks.json, a table and a figure.

Everything is a ratio of two ways measured side by side: the release's way, the network alone, a batch that is already
there, one worker. Pictures are generated scenes of a photograph's size; weights are random where they do not matter,
and the default's own (models/, after make repro) where they do. What cannot be measured here, for want of models/ or of
bfloat16, stays as it was measured last; so do `pipeline` and `compiled`, which are before.py's and compiled.py's.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import measure
import numpy as np
import torch
from joblib import Parallel, delayed
from measure import PRECISIONS, ceiling, has_bf16, peak_gigabytes, precise, precision, ratio, side_by_side, this_machine
from outcome import write
from parts import curves, points_lost, size_of_maps, training_step
from release import score_windows as as_released

from deconvnet.config import machine, params, schema
from deconvnet.data import icon_scenes, voc
from deconvnet.inference import aggregate, crf
from deconvnet.networks import build
from deconvnet.proposals import edge_boxes, edges

PARTS = ("workers", "training", "inference", "maps", "curves")
PHOTOGRAPH = {"width": 500, "height": 375}
TASKS = 4  # at least, all alike, as many for each worker: of a stage's thousands the last ones hardly matter
# The paper's windows of a photograph, those of a batch, and how often: all are alike, so on a CPU a few tell, and the
# release's way sees every second one.
WINDOWS, BATCH, TIMES = (50, 50, 8) if machine.device().type == "cuda" else (16, 8, 1)


@torch.inference_mode()
def network_alone(net: torch.nn.Module, windows: int) -> None:
    side, device = net.size, net.encoder.mean.device
    for _ in range(TIMES):
        for start in range(0, windows, BATCH):
            batch = torch.zeros(min(BATCH, windows - start), 3, side, side, device=device)
            net(batch.contiguous(memory_format=torch.channels_last))


def photographs(net: torch.nn.Module, image: np.ndarray, windows: np.ndarray) -> None:
    for _ in range(TIMES):
        aggregate.score_proposals(net, image, windows, BATCH)


def in_precision(name: str, work: Callable, *arguments: object) -> None:
    with precision(PRECISIONS[name]):
        work(*arguments)


def measure_inference(image: np.ndarray, boxes: np.ndarray) -> dict:
    """The paper's network on a photograph: this pipeline against the release's way, and against its own forward."""
    settings = params.validate(params.compose("voc2012"), "voc2012")
    windows = aggregate.select_proposals(boxes, image.shape[:2], settings.inference)[:WINDOWS]
    plain = build.make_deconvnet(settings).eval().to(machine.device())
    names = ["fp32", *(["tf32"] if machine.device().type == "cuda" else []), *(["bf16"] if has_bf16() else [])]
    nets = {name: precise(PRECISIONS[name], plain) for name in names}
    variants = {"release": partial(in_precision, "fp32", as_released, plain, image, windows[::2])}
    for name, net in nets.items():
        variants[name] = partial(in_precision, name, photographs, net, image, windows)
        variants[f"network {name}"] = partial(in_precision, name, network_alone, net, len(windows))
    seconds = side_by_side(variants)
    share = len(windows) / len(windows[::2])
    best = names[-1]
    found = {"windows": len(windows), "batch": BATCH, "precision": best, "seconds_per_window": {}}
    for name in names:
        found[f"vs_release_{name}"] = ratio(seconds["release"], seconds[name], TIMES * share)
        found[f"vs_network_{name}"] = ratio(seconds[name], seconds[f"network {name}"])
    for name, values in seconds.items():
        count = len(windows[::2]) if name == "release" else TIMES * len(windows)
        found["seconds_per_window"][name] = float(np.median(values)) / count
    found["peak_gigabytes"] = peak_gigabytes()  # with all variants
    return found | {key: found[f"{key}_{best}"]["median"] for key in ("vs_release", "vs_network")}


def workers_speedup(work, *arguments: object) -> dict:
    """This process against 2, 4 … workers, as many as there are cores. They are there when the clock starts, as in a
    stage that has begun: each number of them has its own rounds, since joblib would end some to have fewer.
    """

    def alone() -> object:
        before = cv2.getNumThreads()
        cv2.setNumThreads(1)  # else one worker has all cores for what OpenCV divides
        try:
            return work(*arguments)
        finally:
            cv2.setNumThreads(before)

    most, rate = len(os.sched_getaffinity(0)), {}
    for count in sorted({min(2**power, most) for power in range(1, most.bit_length() + 1)}):
        tasks = count * -(-TASKS // count)
        ways = {n: Parallel(n_jobs=n) for n in (1, count)}
        seconds = side_by_side({n: partial(way, [delayed(alone)()] * tasks) for n, way in ways.items()})
        rate |= {str(n): tasks / float(np.median(seconds[n])) for n in ways}
        found = ratio(seconds[1], seconds[count])
    return {"workers": most, "workers_speedup": found["median"], "spread": found, "images_per_second": rate}


def refine(image: np.ndarray, scores: Path) -> np.ndarray:
    kernel = schema.Kernel(**params.compose("voc2012")["crf"]["candidates"][0])
    return crf.refine(image, np.load(scores), kernel, 10, False).argmax(axis=0).astype(np.uint8)


def propose(image: np.ndarray, settings: schema.Proposals) -> None:
    edge_boxes.find_boxes(edges.image_edges(image, "gradient", settings), settings)


def add_up() -> int:
    """Nothing but arithmetic: what the cores are worth together, which a virtual machine's seldom are in full."""
    return sum(i * i for i in range(5_000_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; default: all of them")
    parser.add_argument("--apart", metavar="NAME", help="what inference takes is kept beside that of other machines")
    parser.add_argument("--as-a-stage", action="store_true", help="with the settings of memory that a stage has")
    arguments = parser.parse_args()
    if arguments.as_a_stage:
        measure.as_a_stage()
    wanted = arguments.parts or PARTS
    if unknown := {*wanted} - {*PARTS}:
        parser.error(f"no such part: {', '.join(unknown)}")
    torch.manual_seed(0)
    settings = params.validate(params.compose("voc2012"), "voc2012")
    gpu, reached = machine.device().type == "cuda", ceiling()
    result = {"machine": this_machine(), "ceiling": reached} if gpu or wanted == PARTS else {}
    with tempfile.TemporaryDirectory() as folder:
        icon_scenes.generate(Path(folder), train=8, dev=1, val=1, **PHOTOGRAPH)
        names = voc.read_list(folder, "train")
        images = [voc.read_image(folder, name) for name in names]
        if "workers" in wanted:  # first, as long as this process is as fresh as they are
            print("proposals and CRF: one worker against all", flush=True)
            result["cores"] = workers_speedup(add_up)
            result["proposals"] = workers_speedup(propose, images[0], settings.proposals)
            scores = Path(folder, "scores.npy")
            np.save(scores, np.random.default_rng(0).dirichlet(np.ones(21), (375, 500)).transpose(2, 0, 1))
            result["crf"] = workers_speedup(refine, images[0], scores)
        if "training" in wanted:
            print("training: an update against a batch that is there", flush=True)
            result["training"] = training_step(Path(folder), names)
        if "inference" in wanted:
            print("inference: the paper's network, in several ways", flush=True)
            boxes = edge_boxes.find_boxes(edges.gradient_edges(images[0]), settings.proposals)
            result["inference"] = measure_inference(images[0], boxes) | {"ceiling": reached}
        if "maps" in wanted:
            print("score maps on disk, what they and bfloat16 cost", flush=True)
            result |= {"scores": size_of_maps(images), "points_lost": points_lost()}
        if "curves" in wanted:
            print("the curves", flush=True)
            result["curves"] = curves(images)
    result = {part: found for part, found in result.items() if found is not None}
    if arguments.apart and "inference" in result:
        result["inference_elsewhere"] = {arguments.apart: result.pop("inference")}
    write(**({"gpu": result} if gpu else result))


if __name__ == "__main__":
    main()

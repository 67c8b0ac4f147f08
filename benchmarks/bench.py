"""How fast the pipeline is on this machine: make bench. Writes reports/benchmarks.json, a table and a figure.

Everything is a ratio of two ways measured side by side: the release's way, the network alone, a batch that is already
there, one worker. Pictures are generated scenes of a photograph's size; weights are random where they do not matter,
and the default's own (models/, after make repro) where they do. What cannot be measured here, for want of models/ or of
bfloat16, stays as it was measured last; so do `pipeline` and `compiled`, which are before.py's and compiled.py's.
"""

import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from joblib import Parallel, delayed
from measure import ceiling, has_bf16, peak_gigabytes, precise, ratio, side_by_side, this_machine
from outcome import write
from parts import curves, points_lost, size_of_maps, training_step
from release import score_windows as as_released

from deconvnet import backbone, crf, icons, inference, params, proposals, voc

PHOTOGRAPH = {"width": 500, "height": 375}
WINDOWS, BATCH = 16, 8  # of the paper's 50, since all are alike; the release's way sees every second one
TASKS = 8  # all alike, an equal share for 2, 4 or 8 workers: of a stage's thousands of pictures the last hardly matters


@torch.inference_mode()
def network_alone(net: torch.nn.Module) -> None:
    side = net.size
    for start in range(0, WINDOWS, BATCH):
        batch = torch.zeros(min(BATCH, WINDOWS - start), 3, side, side, device=net.encoder.mean.device)
        net(batch.contiguous(memory_format=torch.channels_last))


def measure_inference(image: np.ndarray, boxes: np.ndarray) -> dict:
    """The paper's network on one photograph: this pipeline against the release's way, and against its own forward."""
    settings = params.validate(params.compose("voc2012"), "voc2012")
    windows = inference.choose_windows(boxes, image.shape[:2], settings.inference)[:WINDOWS]
    plain = backbone.make_deconvnet(settings).eval()
    nets = {"fp32": precise("32-true", plain)} | ({"bf16": precise("bf16-mixed", plain)} if has_bf16() else {})
    variants = {"release": lambda: as_released(plain, image, windows[::2])}
    for name, net in nets.items():
        variants[name] = lambda net=net: inference.score_windows(net, image, windows, BATCH)
        variants[f"network {name}"] = lambda net=net: network_alone(net)
    seconds = side_by_side(variants)
    share = len(windows) / len(windows[::2])
    best = list(nets)[-1]
    found = {"windows": len(windows), "precision": best, "seconds_per_window": {}}
    for name in nets:
        found[f"vs_release_{name}"] = ratio(seconds["release"], seconds[name], share)
        found[f"vs_network_{name}"] = ratio(seconds[name], seconds[f"network {name}"])
    for name, values in seconds.items():
        count = len(windows) / (share if name == "release" else 1)
        found["seconds_per_window"][name] = float(np.median(values)) / count
    found["peak_gigabytes"] = peak_gigabytes()  # with all variants
    return found | {key: found[f"{key}_{best}"]["median"] for key in ("vs_release", "vs_network")}


def workers_speedup(work, *arguments: object) -> dict:
    """One process against 2, 4 … as many as there are cores, which are there already, as in a stage that has begun."""

    def alone() -> object:
        cv2.setNumThreads(1)  # else one worker has all cores for what OpenCV divides
        return work(*arguments)

    most, variants = len(os.sched_getaffinity(0)), {}
    for count in sorted({min(2**power, most) for power in range(most.bit_length() + 1)}):
        pool = Parallel(n_jobs=count)
        variants[count] = lambda pool=pool: pool(delayed(alone)() for _ in range(TASKS))
    seconds = side_by_side(variants)
    found = ratio(seconds[1], seconds[most])
    rate = {str(count): TASKS / float(np.median(values)) for count, values in seconds.items()}
    return {"workers": most, "workers_speedup": found["median"], "spread": found, "images_per_second": rate}


def refine(image: np.ndarray, scores: Path) -> np.ndarray:
    kernel = params.Kernel(**params.compose("voc2012")["crf"]["candidates"][0])
    return crf.refine(image, np.load(scores), kernel, 10, False).argmax(axis=0).astype(np.uint8)


def propose(image: np.ndarray, settings: params.Proposals) -> None:
    proposals.edge_boxes(proposals.image_edges(image, "gradient", settings), settings)


def add_up() -> int:
    """Nothing but arithmetic: what the cores are worth together, which a virtual machine's seldom are in full."""
    return sum(i * i for i in range(5_000_000))


def main() -> None:
    torch.manual_seed(0)
    settings = params.validate(params.compose("voc2012"), "voc2012")
    result = {"machine": this_machine(), "ceiling": ceiling()}
    with tempfile.TemporaryDirectory() as folder:
        icons.generate(Path(folder), train=8, dev=1, val=1, **PHOTOGRAPH)
        names = voc.read_list(folder, "train")
        images = [voc.read_image(folder, name) for name in names]
        boxes = proposals.edge_boxes(proposals.gradient_edges(images[0]), settings.proposals)
        print("training: an update against a batch that is there", flush=True)
        result["training"] = training_step(Path(folder), names)
        print("inference: the paper's network, three ways", flush=True)
        result["inference"] = measure_inference(images[0], boxes)
        print("proposals and CRF: one worker against all", flush=True)
        result["cores"] = workers_speedup(add_up)
        result["proposals"] = workers_speedup(propose, images[0], settings.proposals)
        scores = Path(folder, "scores.npy")
        np.save(scores, np.random.default_rng(0).dirichlet(np.ones(21), (375, 500)).transpose(2, 0, 1))
        result["crf"] = workers_speedup(refine, images[0], scores)
        print("score maps on disk, what they and bfloat16 cost, and the curves", flush=True)
        result |= {"scores": size_of_maps(images), "points_lost": points_lost(), "curves": curves(images)}
    write(**{part: found for part, found in result.items() if found is not None})


if __name__ == "__main__":
    main()

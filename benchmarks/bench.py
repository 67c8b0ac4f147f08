"""How fast the pipeline is on this machine: make bench. Writes reports/benchmarks.json, a table and a figure.

Everything is a ratio of two ways measured side by side: the release's way, the network alone, a batch that is already
there, one worker. Pictures are generated scenes of a photograph's size; weights are random where they do not matter,
and the default's own (models/, after make repro) where they do. `pipeline` and `compiled` are before.py's and
compiled.py's, and are kept.
"""

import os
import tempfile
from pathlib import Path

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
SCENES = 12  # so many that it hardly matters which worker ends last, as in a stage of thousands


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


def workers_speedup(work, items: list, most: int) -> dict:
    """One process against 2, 4 … `most`, which are there already, as in a stage that has begun."""
    variants = {}
    for count in sorted({min(2**power, most) for power in range(most.bit_length() + 1)}):
        pool = Parallel(n_jobs=count)
        variants[count] = lambda pool=pool: pool(delayed(work)(*item) for item in items)
    seconds = side_by_side(variants)
    found = ratio(seconds[1], seconds[most])
    rate = {str(count): len(items) / float(np.median(values)) for count, values in seconds.items()}
    return {"workers": most, "workers_speedup": found["median"], "spread": found, "images_per_second": rate}


def refine(folder: Path, name: str) -> np.ndarray:
    kernel = params.Kernel(**params.compose("voc2012")["crf"]["candidates"][0])
    image, probabilities = voc.read_image(folder, name), np.load(folder / f"{name}.npy")
    return crf.refine(image, probabilities, kernel, 10, False).argmax(axis=0).astype(np.uint8)


def propose(image: np.ndarray, settings: params.Proposals) -> None:
    proposals.edge_boxes(proposals.image_edges(image, "gradient", settings), settings)


def main() -> None:
    torch.manual_seed(0)
    settings = params.validate(params.compose("voc2012"), "voc2012")
    cores, rng = len(os.sched_getaffinity(0)), np.random.default_rng(0)
    result = {"machine": this_machine(), "ceiling": ceiling()}
    with tempfile.TemporaryDirectory() as folder:
        icons.generate(Path(folder), train=SCENES, dev=1, val=1, **PHOTOGRAPH)
        names = voc.read_list(folder, "train")
        images = [voc.read_image(folder, name) for name in names]
        boxes = proposals.edge_boxes(proposals.gradient_edges(images[0]), settings.proposals)
        print("training: an update against a batch that is there", flush=True)
        result["training"] = training_step(Path(folder), names)
        print("inference: the paper's network, three ways", flush=True)
        result["inference"] = measure_inference(images[0], boxes)
        print("proposals and CRF: one worker against all", flush=True)
        result["proposals"] = workers_speedup(propose, [(i, settings.proposals) for i in images], cores)
        for name in names:
            np.save(Path(folder) / f"{name}.npy", rng.dirichlet(np.ones(21), (375, 500)).transpose(2, 0, 1))
        result["crf"] = workers_speedup(refine, [(Path(folder), name) for name in names], cores)
        print("score maps on disk, what they and bfloat16 cost, and the curves", flush=True)
        result["scores"] = size_of_maps(images)
        result["points_lost"] = points_lost()
        result["curves"] = curves(images, cores)
    write(**result)


if __name__ == "__main__":
    main()

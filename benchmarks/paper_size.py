"""The paper's network on this machine: one update of each stage at 8 × 8 images, and one image with 50 windows.

    python benchmarks/paper_size.py [FOLDER]       a folder in VOC layout; without one, generated scenes of 500×375 px

Prints seconds, loss and the peak of memory after each part. About five minutes on two cores.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from deconvnet import backbone, examples, icons, inference, machine, params, proposals, training, voc

PROFILE, IMAGES = "voc2012", 6


def say(part: str, started: float, *more: str) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    on_device = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GB on the GPU" if torch.cuda.is_available() else ""
    print(f"{part}: {time.perf_counter() - started:.1f} s, peak {peak:.1f} GB{on_device}", *more, flush=True)


def main(folder: Path) -> None:
    settings = params.validate(params.compose(PROFILE), PROFILE)
    names = voc.read_list(folder, "train")[:IMAGES]
    objects, images = voc.objects(folder, names), examples.Images(folder, names)
    boxes = proposals.propose(folder, names, settings.proposals, "gradient")  # nothing trained or downloaded
    net = backbone.make_deconvnet(settings)
    print(f"DeconvNet, {sum(p.numel() for p in net.parameters()):,} parameters, on {machine.device()}")
    tables = {"stage1": objects, "stage2": examples.overlapping(boxes, objects, settings.stage2.iou, windows=0)}
    for stage, table in tables.items():
        solver = getattr(settings, stage).model_copy(update={"updates": 1})
        started = time.perf_counter()
        batches = examples.crop_batches(images, examples.weighted(table, solver.balance), solver, net.size)
        curve = training.train(net, batches, solver)
        say(f"{stage}, one update of {solver.batch} images", started, f"loss {curve['loss'].iloc[-1]:.3f}")
    started, image = time.perf_counter(), images[names[0]][0]
    windows = inference.choose_windows(boxes[names[0]], image.shape[:2], settings.inference)
    scores = inference.score_windows(net.eval(), image, windows, settings.inference.batch)
    say(f"inference, {len(windows)} windows of an image of {image.shape[1]}×{image.shape[0]} px", started)
    assert scores.isfinite().all()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scenes:
            icons.generate(Path(scenes) / "voc", train=IMAGES, dev=1, val=1, width=500, height=375)
            main(Path(scenes) / "voc")

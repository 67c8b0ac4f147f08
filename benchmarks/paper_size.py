"""The trainings of the paper's network on this machine: python benchmarks/paper_size.py [bf16-mixed | tf32 | 32-true]

On a GPU: 128 iterations of stage 2 and of FCN-8s with the settings of `voc2012`, as `training.train` makes them, in turn
with as many on a batch that lies there; adds `gpu.paper_size` to reports/benchmarks.json, each precision by itself.
On a CPU: one update of each, and the memory that it takes; about five minutes on two cores, and only printed.
Pictures are generated scenes of 500×500 px, so that FCN-8s sees VOC's padded 512×512.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from measure import as_a_stage, ceiling, in_turn, peak_gigabytes, ratio, this_machine
from outcome import write
from parts import FIRST, loaded_updates, resident_updates

from deconvnet.config import machine, params, schema
from deconvnet.data import icon_scenes, voc
from deconvnet.networks import build
from deconvnet.pipeline import forecast
from deconvnet.training import examples, loop

UPDATES, SCENES, SIDE = 128, 64, 500  # more iterations than the loader's processes can have ready when the clock starts
PAPERS = {"deconvnet": ("stage1", "stage2"), "fcn8s": ("fcn",)}  # whose iterations add up to the whole training


def trainings(settings: schema.Params, folder: Path, iterations: int) -> Iterator[tuple]:
    """(name, makes the network, settings of the solver, batches, side of an image)"""
    names = voc.read_list(folder, "train")
    images, objects = examples.Images(folder, names), voc.objects(folder, names)
    solver = settings.stage2.model_copy(update={"iterations": iterations})
    crops = examples.crop_batches(images, objects.assign(weight=1 / len(objects)), solver, settings.network.size)
    yield "deconvnet", build.make_deconvnet, solver, crops, settings.network.size
    solver = settings.fcn.model_copy(update={"iterations": iterations})
    yield "fcn8s", build.make_fcn, solver, examples.image_batches(images, names, solver, 32), forecast.PADDED[0]


def measured(name: str, make, settings: schema.Params, solver: schema.Solver, batches, side: int) -> dict:
    """What `training.train` takes an update, against the same step on one batch that is there."""
    with torch.device("meta"):
        flops = forecast.cost(make(settings), side, side).training * solver.batch_size
    net = make(settings).to(machine.device(), memory_format=torch.channels_last)
    there = tuple(part.to(machine.device()) for part in batches[0])
    torch.cuda.reset_peak_memory_stats()
    seconds = in_turn({
        "loader": lambda: loaded_updates(net, batches, solver),
        "resident": lambda: resident_updates(net.train(), there, solver, UPDATES, FIRST),
    })  # fmt: skip
    against, update = ratio(seconds["loader"], seconds["resident"]), statistics.median(seconds["loader"])
    iterations = sum(getattr(settings, stage).iterations for stage in PAPERS[name])
    return {
        "vs_resident_batch": against,
        "seconds_per_update": update,
        "images_per_second": solver.batch_size / update,
        "tflops": flops / update / 1e12,
        "gpu_gigabytes": torch.cuda.max_memory_allocated() / 1e9,
        "parts_at_once": machine.micro_batches_at_once(solver.micro_batches),
        "iterations": iterations,
        "hours": iterations * update / 3600,
    }


def main() -> None:
    as_a_stage()  # as it would be trained
    precision = sys.argv[1] if len(sys.argv) > 1 else "bf16-mixed"
    gpu = machine.device().type == "cuda"
    os.environ["DECONVNET_PRECISION"] = precision
    settings = params.validate(params.compose("voc2012"), "voc2012")
    if gpu:
        write(gpu={"machine": this_machine(), "ceiling": ceiling()})
    with tempfile.TemporaryDirectory() as folder:
        icon_scenes.generate(Path(folder), train=SCENES, dev=1, val=1, width=SIDE, height=SIDE)
        for name, make, solver, batches, side in trainings(settings, Path(folder), UPDATES if gpu else 1):
            started = time.perf_counter()
            if gpu:
                found = measured(name, make, settings, solver, batches, side)
                print(name, precision, found, flush=True)
                write(gpu={"paper_size": {f"{name} {precision}": found}})
            else:
                curve = loop.train(make(settings), batches, solver)
                print(f"{name}, one update of {solver.batch_size} images: {time.perf_counter() - started:.1f} s, peak "
                      f"{peak_gigabytes():.1f} GB, loss {curve['loss'].iloc[-1]:.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

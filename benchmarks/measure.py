"""How two ways of the same work are compared on this machine, and the release's way of inference."""

import gc
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from tqdm import trange

from deconvnet.config import machine
from deconvnet.images import boxes, crops
from deconvnet.pipeline.provenance import command_output, processor

PRECISIONS = {"fp32": "32-true", "tf32": "tf32", "bf16": "bf16-mixed"}  # values of DECONVNET_PRECISION
MIN_SECONDS = 0.1  # shorter work is repeated


def in_turn(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way returns in each round: they take turns, and one round before the others does not count."""
    found = [{name: way() for name, way in ways.items()} for _ in trange(rounds + 1, desc=f"rounds of {[*ways]}")]
    return {name: [row[name] for row in found[1:]] for name in ways}


def clock() -> float:
    """Seconds, once the device has done all that it was asked for."""
    if machine.device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work: Callable, *arguments: object, name: str = "fp32") -> float:
    """How long the work takes in the precision `name`; the mean of as many repetitions as MIN_SECONDS need."""
    with precision(name):
        started, count, elapsed = clock(), 0, 0.0
        while not count or elapsed < MIN_SECONDS:
            work(*arguments)
            count, elapsed = count + 1, clock() - started
    return elapsed / count


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """slow / fast of each round: the median, the lowest and the highest."""
    found = [s / f for s, f in zip(slow, fast, strict=True)]
    return {"median": statistics.median(found), "lowest": min(found), "highest": max(found)}


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Inside, the machine computes in this one of PRECISIONS."""
    with patch.dict(os.environ, DECONVNET_PRECISION=PRECISIONS[name]):
        machine.precision()  # sets torch's switches too
        yield
    machine.precision()


def precisions() -> list[str]:
    """Those that the device has instructions for, the fastest last."""
    if machine.device().type == "cuda":
        return ["fp32", "tf32", *["bf16"] * torch.cuda.is_bf16_supported(including_emulation=False)]
    return [
        "fp32",
        *["bf16"] * bool(re.search("amx_bf16|avx512_bf16", Path("/proc/cpuinfo").read_text(encoding="utf-8"))),
    ]


def peak_gigabytes() -> float:
    """The most that a GPU's tensors, or else this process, have held since this was last called."""
    gc.collect()  # optimizers and schedulers refer to each other
    if machine.device().type == "cuda":
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    else:
        peak = 1024 * int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[1])
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM starts anew: proc(5)
    return peak / 1e9


def this_machine() -> dict[str, object]:
    changed = command_output("git", "status", "--porcelain", "--", "src", "benchmarks")
    commit = command_output("git", "rev-parse", "--short=12", "HEAD") + " with uncommitted changes" * bool(changed)
    device = torch.cuda.get_device_name() if machine.device().type == "cuda" else processor()
    return {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__,
            "load": os.getloadavg()[0], "commit": commit}  # fmt: skip


@torch.no_grad()
def score_as_released(net: torch.nn.Module, image: np.ndarray, proposals: np.ndarray) -> np.ndarray:
    """The release's way (5.1): box by box in float32, batch norm as layers, and a copy of the whole map per box."""
    total = np.zeros((net.score.out_channels, *image.shape[:2]), np.float32)
    for box in proposals:
        crop = crops.to_tensor(boxes.resize_image(boxes.crop(image, box, 0), net.size)[None])
        scores = net(crop.contiguous().to(net.encoder.mean.device)).cpu()  # there it is resized
        rows, columns, scores = crops.resize_to_box(scores[0], box, image.shape[:2])
        whole = np.zeros_like(total)
        whole[:, rows, columns] = scores
        total = np.maximum(total, whole)
    return total

"""Seconds as ratios: what is compared runs in turn, round by round, and the median of the pairs counts."""

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from deconvnet.config import machine
from deconvnet.networks import fuse
from deconvnet.pipeline import provenance, run_notebook

REPEATS = 5
PRECISIONS = {"fp32": "32-true", "tf32": "tf32", "bf16": "bf16-mixed"}  # as pages call them, as the machine does


def in_turn(variants: dict[str, Callable[[], float]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """What each variant returns in each round, after one round that does not count."""
    found = {name: [] for name in variants}
    for number in range(repeats + 1):
        for name, work in variants.items():
            value = work()
            if number:
                found[name].append(value)
    return found


def as_a_stage() -> None:
    """Begins this program anew with a stage's settings (glibc reads its own then): memory is kept, not given back.

    The release's way, which allocates most, gains most by them: so the plain comparison is without.
    """
    if run_notebook.ENVIRONMENT.keys() - os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], run_notebook.ENVIRONMENT | os.environ)


def clock() -> float:
    """Seconds, when all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def side_by_side(variants: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Seconds of each variant in each round, after one round that does not count."""

    def seconds(work: Callable[[], object]) -> float:
        started = clock()
        work()
        return clock() - started

    return in_turn({name: partial(seconds, work) for name, work in variants.items()}, repeats)


def ratio(slow: list[float], fast: list[float], scale: float = 1.0) -> dict[str, float]:
    """`scale` × slow / fast: the median over the rounds, the lowest and the highest; and where and when."""
    found = [scale * s / f for s, f in zip(slow, fast, strict=True)]
    return {"median": statistics.median(found), "lowest": min(found), "highest": max(found)} | here()


def where() -> str:
    """The GPU; or the processor, how many of its cores are used if not all, and what there multiplies bfloat16."""
    used, more = len(os.sched_getaffinity(0)), []
    if machine.device().type == "cpu":
        more = [f"{used} used"] * (used < os.cpu_count()) + [bf16_by()] * bool(bf16_by())
        more += ["memory kept as in a stage"] * ("MALLOC_MMAP_MAX_" in os.environ)
    return ", ".join([provenance.device_name(), *more])


def here() -> dict[str, str]:
    """Where a number is from, since not all can be had everywhere: some need models/, some bfloat16."""
    return {"on": f"{where()}, at {provenance.command_output('git', 'rev-parse', '--short=12', 'HEAD')}"}


def ceiling() -> dict[str, float]:
    """What the machine can do: matrix products in each precision (GFLOP/s), copying memory (GB/s, read and written)."""
    device, found = machine.device(), {}
    side, floats = (8192, 2**29) if device.type == "cuda" else (2048, 2**26)
    for name in ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16"):
        dtype = torch.bfloat16 if name == "bf16" else torch.float32
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        with precision(PRECISIONS[name]):
            seconds = side_by_side({name: lambda a=a, b=b: a @ b})[name]
        found[f"{name}_gflops"] = 2 * side**3 / statistics.median(seconds) / 1e9
    source = torch.zeros(floats, device=device)
    target = torch.empty_like(source)
    seconds = side_by_side({"copy": lambda: target.copy_(source)})["copy"]
    return found | {"copy_gbytes": 2 * source.nbytes / statistics.median(seconds) / 1e9}


def bf16_by() -> str:
    """What of the processor multiplies bfloat16, if anything does."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags), "")


def has_bf16() -> bool:
    """Whether the device multiplies bfloat16 faster than it converts it."""
    return torch.cuda.is_bf16_supported() if machine.device().type == "cuda" else bool(bf16_by())


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Inside, the machine computes in this precision (DECONVNET_PRECISION)."""
    before = os.environ.get("DECONVNET_PRECISION", "32-true")
    try:
        os.environ["DECONVNET_PRECISION"] = name
        machine.precision()  # tells torch too
        yield
    finally:
        os.environ["DECONVNET_PRECISION"] = before
        machine.precision()


def precise(name: str, net: torch.nn.Module) -> torch.nn.Module:
    """`net` made ready for inference in a precision of the machine."""
    with precision(name):
        return fuse.for_inference(net)


def peak_gigabytes() -> float:
    """The most memory that this process has held so far, beside a GPU's."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def this_machine() -> dict[str, object]:
    return {
        "device": where(),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "bf16": has_bf16(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": provenance.command_output("git", "rev-parse", "--short=12", "HEAD"),
    }

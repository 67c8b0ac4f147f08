"""Settings of the machine, not of the experiment: environment variables, each with a default that always works.

DECONVNET_DEVICE     cpu | cuda           (default: cuda where there is one)
DECONVNET_PRECISION  32-true | tf32 (on a GPU) | bf16-mixed (default: 32-true, so that results stay comparable)
DECONVNET_CORES      worker processes of the CPU stages (default: all cores)
DECONVNET_CLUSTER    tcp://host:port of a dask scheduler whose workers do that instead (default: none)
DECONVNET_PARTS      parts of a training's batch (accumulate) that go through the network at once and share its memory
                     (default: all on a GPU, but for 32-true, which that slows; one on a CPU)
DECONVNET_PROCESSES  processes that share each batch of a training, on GPUs one each (default: 1)
DECONVNET_WORKERS    processes that prepare training batches, for each of those (default: 0 on a CPU, else its share of
                     the cores - 1, 8 at most: each keeps two batches ready in shared memory)
DECONVNET_THREADS    threads of the arithmetic (default: its share of the cores; another number may change last digits)
DECONVNET_CHECKPOINT seconds between two checkpoints of a training (default: 60; 0: after each update)
"""

import os
from typing import TYPE_CHECKING

import psutil

from deconvnet.errors import UserError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("32-true", "tf32", "bf16-mixed")


def number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise UserError(f"{name} must be a whole number, not '{value}'.")
    return int(value)


def device() -> "torch.device":
    import torch  # late: the stages that only need cores() start seconds sooner

    name = os.environ.get("DECONVNET_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise UserError(f"DECONVNET_DEVICE must be cpu or cuda, not '{name}'.")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("DECONVNET_DEVICE is cuda, but torch sees no GPU on this machine: unset it.")
    if name == "cuda" and world() > 1:
        if (gpus := torch.cuda.device_count()) < world():
            raise UserError(f"DECONVNET_PROCESSES is {world()}, but torch sees {gpus} GPU(s), and each needs its own.")
        return torch.device(name, rank())
    return torch.device(name)


def precision() -> str:
    """Fabric's name for it; tf32, which torch has for a GPU's convolutions unless told otherwise, is set here."""
    import torch

    name = os.environ.get("DECONVNET_PRECISION", "32-true")
    if name not in PRECISIONS:
        raise UserError(f"DECONVNET_PRECISION must be {', '.join(PRECISIONS)}, not '{name}'.")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name != "32-true"
    return name.replace("tf32", "32-true")


def cores() -> int:
    return max(number("DECONVNET_CORES", len(os.sched_getaffinity(0))), 1)


def processes() -> int:
    return max(number("DECONVNET_PROCESSES", 1), 1)


def parts(of: int) -> int:
    """How many of a batch's `of` parts go through the network at once."""
    alone = device().type == "cpu" or os.environ.get("DECONVNET_PRECISION", "32-true") == "32-true"
    return min(max(number("DECONVNET_PARTS", 1 if alone else of), 1), of)


def world() -> int:
    """How many processes share the training that this one takes part in, as torchrun says; else 1."""
    return number("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this is. Rank 0 writes what there is to write."""
    return number("RANK", 0)


def check_share(parts: int, processes: int) -> None:
    """Raises UserError if the parts of a batch cannot be shared evenly."""
    if parts % processes:
        fitting = ", ".join(str(n) for n in range(1, parts + 1) if parts % n == 0)
        raise UserError(
            f"A batch that runs in {parts} parts (accumulate) cannot be shared evenly by {processes} processes: set "
            f"DECONVNET_PROCESSES to one of {fitting}."
        )


def cluster() -> str | None:
    return os.environ.get("DECONVNET_CLUSTER") or None


def workers() -> int:
    return number("DECONVNET_WORKERS", 0 if device().type == "cpu" else min(max(cores() // world() - 1, 0), 8))


def threads() -> int:
    usable = len(os.sched_getaffinity(0))
    usable = min(psutil.cpu_count(logical=False) or usable, usable)
    return max(number("DECONVNET_THREADS", usable // world()), 1)


def checkpoint_seconds() -> int:
    return number("DECONVNET_CHECKPOINT", 60)

"""Settings of the machine, not of the experiment: environment variables, each with a default that always works.

DECONVNET_DEVICE     cpu | cuda           (default: cuda where there is one)
DECONVNET_PRECISION  32-true | bf16-mixed (default: 32-true, so that results stay comparable)
DECONVNET_CORES      worker processes of the CPU stages (default: all cores)
DECONVNET_CLUSTER    tcp://host:port of a dask scheduler whose workers do that instead (default: none)
DECONVNET_WORKERS    processes that prepare training batches (default: 0 on a CPU, else cores - 1)
DECONVNET_THREADS    threads of the arithmetic (default: the cores; another number may change last digits)
DECONVNET_CHECKPOINT seconds between two checkpoints of a training (default: 60; 0: after each update)
"""

import os
from typing import TYPE_CHECKING

import psutil

from deconvnet.errors import UserError

if TYPE_CHECKING:
    import torch


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
    return torch.device(name)


def precision() -> str:
    return os.environ.get("DECONVNET_PRECISION", "32-true")


def cores() -> int:
    return max(number("DECONVNET_CORES", len(os.sched_getaffinity(0))), 1)


def cluster() -> str | None:
    return os.environ.get("DECONVNET_CLUSTER") or None


def workers() -> int:
    return number("DECONVNET_WORKERS", 0 if device().type == "cpu" else cores() - 1)


def threads() -> int:
    usable = len(os.sched_getaffinity(0))
    return max(number("DECONVNET_THREADS", min(psutil.cpu_count(logical=False) or usable, usable)), 1)


def checkpoint_seconds() -> int:
    return number("DECONVNET_CHECKPOINT", 60)

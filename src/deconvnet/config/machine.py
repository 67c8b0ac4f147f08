"""Settings of the machine, not of the experiment: environment variables, each with a default that always works.

DECONVNET_PYTHON         the Python of the stages (default: .venv's, else the one that is found as python3)
DECONVNET_DEVICE         cpu | cuda | mps (default: cuda where there is one)
DECONVNET_PRECISION      32-true | tf32 (on a GPU) | bf16-mixed (default: 32-true, so that results stay comparable)
DECONVNET_CORES          worker processes of the stages without a network (default: all cores)
DECONVNET_CLUSTER        tcp://host:port of a dask scheduler whose workers are used instead (default: none)
DECONVNET_MICRO_BATCHES  micro-batches that go through the network together in training; they share its memory
                         (default: all on a GPU, except in 32-true, where that is slower; 1 on a CPU)
DECONVNET_PROCESSES      processes that share each training batch, one per GPU (default: 1)
DECONVNET_TORCHRUN       further options for torchrun, which starts them: several machines (default: none)
DECONVNET_WORKERS        processes that prepare training batches, for each training process (default: 0 on a CPU, else
                         its share of the cores - 1, at most 8: each keeps two batches ready in shared memory)
DECONVNET_THREADS        threads of the arithmetic (default: its share of the cores; may change the last digits)
DECONVNET_CHECKPOINT     seconds between two checkpoints of a training (default: 60; 0: after each iteration)
"""

import os
from functools import cache
from typing import TYPE_CHECKING

import psutil

from deconvnet.config.errors import UserError

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu", "cuda", "mps")
PRECISIONS = ("32-true", "tf32", "bf16-mixed")
MAX_WORKERS = 8  # more were not measured, and each keeps two batches in shared memory


def read_int(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise UserError(f"{name} must be a whole number, not '{value}'.")
    return int(value)


def check() -> None:
    """Raises UserError for a setting that a stage would refuse later; imports torch only for DECONVNET_DEVICE=cuda."""
    for name in ("CORES", "PROCESSES", "MICRO_BATCHES", "WORKERS", "THREADS", "CHECKPOINT"):
        read_int(f"DECONVNET_{name}", 1)
    check_precision()
    if os.environ.get("DECONVNET_DEVICE") not in (None, "", "cpu"):
        device()


def device() -> "torch.device":
    import torch  # late: stages that only need cores() start seconds sooner

    name = os.environ.get("DECONVNET_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if name not in DEVICES:
        raise UserError(f"DECONVNET_DEVICE must be cpu, cuda or mps, not '{name}'.")
    if name != "cpu" and not getattr(torch, name).is_available():
        raise UserError(
            f"DECONVNET_DEVICE (or --device) is {name}, but torch sees no such GPU on this machine: unset it."
        )
    if name == "cuda" and world_size() > 1 and (gpus := torch.cuda.device_count()) <= local_rank():
        raise UserError(
            f"DECONVNET_PROCESSES is {world_size()}, but torch sees {gpus} GPU(s), and each process needs its own."
        )
    chosen = torch.device(name, local_rank()) if name == "cuda" and world_size() > 1 else torch.device(name)
    if path := os.environ.get("DECONVNET_USED"):
        note_device(chosen, path)
    return chosen


def use_device(name: str) -> None:
    """Sets this process's device: cpu, cuda, cuda:1 for the second GPU, mps. Raises UserError if it is not there."""
    import torch

    kind, colon, number = name.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and number.isdecimal())):
        raise UserError(f"The device must be cpu, cuda, cuda:1 (or another GPU's number) or mps, not '{name}'.")
    os.environ["DECONVNET_DEVICE"] = kind
    device()
    if colon:
        if int(number) >= (gpus := torch.cuda.device_count()):
            raise UserError(f"There is no {name}: torch sees {gpus} GPU(s) on this machine, cuda:0 to cuda:{gpus - 1}.")
        torch.cuda.set_device(int(number))  # the one that "cuda" means from here on


@cache
def note_device(device: "torch.device", path: str) -> None:
    """Adds a line to the file in which pipeline.run_notebook finds the devices that its stage has used."""
    import torch

    gpu = f"cuda:{device.index or 0} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{gpu or device}\n")


def check_precision() -> str:
    name = os.environ.get("DECONVNET_PRECISION", "32-true")
    if name not in PRECISIONS:
        raise UserError(f"DECONVNET_PRECISION must be {', '.join(PRECISIONS)}, not '{name}'.")
    return name


def precision() -> str:
    """Fabric's name for the precision. Also sets torch's TF32 switches, which are on for convolutions by default."""
    import torch

    name = check_precision()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name != "32-true"
    return name.replace("tf32", "32-true")


def cores() -> int:
    return max(read_int("DECONVNET_CORES", len(os.sched_getaffinity(0))), 1)


def processes() -> int:
    return max(read_int("DECONVNET_PROCESSES", 1), 1)


def torchrun_options() -> list[str]:
    return os.environ.get("DECONVNET_TORCHRUN", "").split()


def micro_batches_at_once(total: int) -> int:
    """How many of a batch's `total` micro-batches go through the network together."""
    one_by_one = device().type == "cpu" or os.environ.get("DECONVNET_PRECISION", "32-true") == "32-true"
    return min(max(read_int("DECONVNET_MICRO_BATCHES", 1 if one_by_one else total), 1), total)


def world_size() -> int:
    """How many processes share the training that this process takes part in, as torchrun sets it; else 1."""
    return read_int("WORLD_SIZE", 1)


def rank() -> int:
    """The number of this process among them. Rank 0 writes the results."""
    return read_int("RANK", 0)


def local_rank() -> int:
    """Its number on this machine, which is the number of its GPU."""
    return read_int("LOCAL_RANK", rank())


def check_micro_batches(micro_batches: int, processes: int) -> None:
    """Raises UserError if the micro-batches of a batch cannot be shared evenly among the processes."""
    if micro_batches % processes:
        divisors = ", ".join(str(n) for n in range(1, micro_batches + 1) if micro_batches % n == 0)
        raise UserError(
            f"A batch of {micro_batches} micro-batches cannot be shared evenly by {processes} processes: set "
            f"DECONVNET_PROCESSES to one of {divisors}."
        )


def cluster() -> str | None:
    return os.environ.get("DECONVNET_CLUSTER") or None


def workers() -> int:
    share = max(cores() // local_world_size() - 1, 0)
    return read_int("DECONVNET_WORKERS", 0 if device().type == "cpu" else min(share, MAX_WORKERS))


def threads() -> int:
    usable = len(os.sched_getaffinity(0))
    usable = min(psutil.cpu_count(logical=False) or usable, usable)
    return max(read_int("DECONVNET_THREADS", usable // local_world_size()), 1)


def checkpoint_seconds() -> int:
    return read_int("DECONVNET_CHECKPOINT", 60)


def local_world_size() -> int:
    """How many of those processes run on this machine."""
    return read_int("LOCAL_WORLD_SIZE", world_size())


def nodes() -> int:
    return world_size() // local_world_size()

"""One task per image, by joblib: on all cores of this machine, or on a dask cluster if DECONVNET_CLUSTER names one.

A task depends on its image alone. So it does not matter where it runs, beside how many others, and whether it runs
again because its worker has died. The workers of a cluster run in the project's folder, on a shared file system:
docs/scaling.md.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from deconvnet.config import machine
from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.utils.files import fingerprint

PACKAGE = Path(__file__).parents[1]
CODE_FINGERPRINT = fingerprint(
    *(path.read_bytes() for path in sorted(PACKAGE.rglob("*.py")))
)  # at this process's start
IMAGES_AT_ONCE = (
    2  # by one network on a CPU; more were not tried. Their threads are halved, so last digits depend on it
)
CLUSTER_TIMEOUT_S = 10  # for a scheduler to answer, and for its workers


def process_map(
    task: Callable, items: Iterable, desc: str, unit: str = "image", min_items_per_worker: int = 1
) -> Iterator:
    """task(item) of each item, in order, by processes with one thread each; `desc` heads the progress bar.

    The result does not depend on the number of processes. Tasks and items are sent to them: keep them small, and name
    files. With fewer than two workers' worth of items, everything runs in this process. Raises UserError if there is no
    such cluster, or if its workers run elsewhere or with other code.
    """
    items = list(items)
    with _executor(len(items) // min_items_per_worker) as (parallel, expected):
        call = delayed(partial(_call, task, expected))
        # In a tuple: a large array by itself dask would place on one worker alone, and lose with it.
        results = parallel(call((item,)) for item in items)
        yield from tqdm(results, total=len(items), desc=desc, unit=unit, mininterval=1)


def thread_map(task: Callable, items: Iterable, desc: str, unit: str = "image") -> Iterator:
    """task(item) of each item, in order, by threads of this process: for what torch computes with one network.

    On a CPU two images are in work at once and share the threads: much of an image's work is too small to divide. On a
    GPU they come one after another.
    """
    import torch  # late: stages without a network start seconds sooner

    items, threads = list(items), torch.get_num_threads()
    at_once = min(threads, IMAGES_AT_ONCE) if machine.device().type == "cpu" else 1
    share = {"initializer": torch.set_num_threads, "initargs": (threads // at_once,)}  # each thread has its own setting
    try:
        with ThreadPoolExecutor(at_once, **share) as pool:
            yield from tqdm(pool.map(task, items), total=len(items), desc=desc, unit=unit, mininterval=1)
    finally:
        torch.set_num_threads(threads)  # the setting of threads to come


def _call(task: Callable, expected: tuple[str, str] | None, item: tuple):
    if expected and expected != (str(ROOT), CODE_FINGERPRINT):
        root, _ = expected
        raise UserError(
            f"A worker of the cluster runs in {ROOT}, this stage in {root}. Start the workers there."
            if root != str(ROOT)
            else f"A worker of the cluster runs other code than {ROOT} now holds. Restart the workers."
        )
    return task(*item)


@contextmanager
def _executor(max_workers: int) -> Iterator[tuple[Parallel, tuple[str, str] | None]]:
    """Joblib with at most so many processes, and the folder and code that a cluster's workers must have."""
    if max_workers > 1 and (address := machine.cluster()):
        with _cluster_client(address) as client:
            with parallel_config("dask", client=client):
                parallel = Parallel(return_as="generator")
            yield parallel, (str(ROOT), CODE_FINGERPRINT)
    else:
        with parallel_config("loky", inner_max_num_threads=1):
            parallel = Parallel(n_jobs=max(min(machine.cores(), max_workers), 1), return_as="generator")
        yield parallel, None


@contextmanager
def _cluster_client(address: str) -> Iterator:
    try:
        from distributed import Client  # late: only a cluster needs it
    except ImportError:
        raise UserError(
            "DECONVNET_CLUSTER needs dask: pip install 'deconvnet[cluster]' here and on the workers, or unset it."
        ) from None
    try:
        client = Client(address, set_as_default=False, timeout=CLUSTER_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise UserError(
            f"DECONVNET_CLUSTER: no dask scheduler answers at {address} ({error}). Start one, or unset it."
        ) from None
    with client:
        with suppress(TimeoutError):
            client.wait_for_workers(2, timeout=CLUSTER_TIMEOUT_S)  # with a single core joblib would run everything here
        if not client.ncores():
            raise UserError(f"DECONVNET_CLUSTER: the scheduler at {address} has no workers. Start at least two.")
        yield client

"""One task for each image, by joblib: over all cores of this machine, or a dask cluster if DECONVNET_CLUSTER names one.

A task depends on its image alone. So it does not matter where it runs, beside how many others, and whether it runs once
more because its worker has died. The workers of a cluster run in the project's folder, on a file system that all
share: docs/scaling.md.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from deconvnet import machine
from deconvnet.errors import UserError
from deconvnet.files import digest
from deconvnet.paths import ROOT

CODE = digest(*(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))  # as this process began
LANES = 2  # memory holds the scores of each; more were not tried
WAIT = 10  # seconds for a scheduler to answer, and for its workers


def over(task: Callable, items: Iterable, what: str, unit: str = "image", least: int = 1) -> Iterator:
    """task(item) of each item, in their order, as they come; `what` heads the bar of progress.

    The same whatever the number of processes, each of which computes with one thread. With fewer than `least` items for
    each, there are fewer processes; with fewer than two, all is done in this one. A task and its items travel: let them
    be small, and name files. Raises UserError if there is no such cluster, or it works elsewhere or with other code.
    """
    items = list(items)
    with _engine(len(items) // least) as (parallel, where):
        call = delayed(partial(_call, task, where))
        # In a tuple: a large array or table by itself dask would place on one worker alone, with which it could die.
        results = parallel(call((item,)) for item in items)
        yield from tqdm(results, total=len(items), desc=what, unit=unit, mininterval=1)


def in_lanes(task: Callable, items: Iterable, what: str, unit: str = "image") -> Iterator:
    """task(item) of each item, in their order, as they come, in threads of this process: for what torch computes with
    one network.

    On a CPU two share the threads of arithmetic: much of what an image asks for is too small to divide, and meanwhile
    the other image's convolutions go on. A GPU takes one after the other.
    """
    import torch  # late: the stages without a network start seconds sooner

    items, threads = list(items), torch.get_num_threads()
    lanes = min(threads, LANES) if machine.device().type == "cpu" else 1
    share = {"initializer": torch.set_num_threads, "initargs": (threads // lanes,)}  # a thread's own setting
    try:
        with ThreadPoolExecutor(lanes, **share) as pool:
            yield from tqdm(pool.map(task, items), total=len(items), desc=what, unit=unit, mininterval=1)
    finally:
        torch.set_num_threads(threads)  # for threads to come


def _call(task: Callable, where: tuple[str, str] | None, item: tuple):
    if where and where != (str(ROOT), CODE):
        root, _ = where
        raise UserError(
            f"A worker of the cluster runs in {ROOT}, this stage in {root}. Start the workers there."
            if root != str(ROOT)
            else f"A worker of the cluster has other code than lies in {ROOT} now. Start the workers again."
        )
    return task(*item)


@contextmanager
def _engine(most: int) -> Iterator[tuple[Parallel, tuple[str, str] | None]]:
    """Joblib with at most so many processes, and what a cluster's workers must agree with."""
    if most > 1 and (address := machine.cluster()):
        with _client(address) as client:
            with parallel_config("dask", client=client):
                parallel = Parallel(return_as="generator")
            yield parallel, (str(ROOT), CODE)
    else:
        with parallel_config("loky", inner_max_num_threads=1):
            parallel = Parallel(n_jobs=max(min(machine.cores(), most), 1), return_as="generator")
        yield parallel, None


@contextmanager
def _client(address: str) -> Iterator:
    try:
        from distributed import Client  # late: only a cluster needs it
    except ImportError:
        raise UserError(
            "DECONVNET_CLUSTER needs dask: pip install 'deconvnet[cluster]' here and on the workers, or unset it."
        ) from None
    try:
        client = Client(address, set_as_default=False, timeout=WAIT)
    except (OSError, ValueError) as error:
        raise UserError(
            f"DECONVNET_CLUSTER: no scheduler of dask answers at {address} ({error}). Start one, or unset it."
        ) from None
    with client:
        with suppress(TimeoutError):
            client.wait_for_workers(2, timeout=WAIT)  # joblib sends no work to one core alone, and does it here
        if not client.ncores():
            raise UserError(f"DECONVNET_CLUSTER: the scheduler at {address} has no workers. Start two at least.")
        yield client

"""What test_cluster.py runs, in a project of its own: the same work in one process, in two, and on a cluster.

    DECONVNET_CLUSTER=ADDRESS python tests/on_cluster.py

Prints as JSON the hashes of all results of each, and what became of the cluster's work while a worker was killed.
"""

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import torch
from distributed import Client

from deconvnet.config import params, schema
from deconvnet.config.paths import OBJECTS, PREDICTIONS, ROOT, SCORES, VOC
from deconvnet.data import voc
from deconvnet.evaluation import calibration, metrics, per_image
from deconvnet.inference import crf, score_split
from deconvnet.networks import build, weights
from deconvnet.proposals import edge_boxes
from deconvnet.utils import parallel
from deconvnet.utils.files import fingerprint

ADDRESS = os.environ.pop("DECONVNET_CLUSTER")
KERNEL = schema.Kernel(gaussian_weight=3, gaussian_xy=3, bilateral_weight=5, bilateral_xy=20, bilateral_rgb=3)


def work(where: str) -> dict[str, str]:
    """Hashes of proposals, score maps, label maps after the CRF, and what is measured on them."""
    os.environ["DVC_STAGE"] = where  # each run keeps its own finished images
    settings, names, objects = params.load(), voc.read_list(VOC, "val"), voc.read_objects(OBJECTS, "val")
    found = edge_boxes.propose(VOC, names, settings.proposals, "gradient")
    net = weights.load(build.make_deconvnet(settings), "deconvnet")
    score_split.score_split("deconvnet", net, names, found, settings.inference)
    crf.predict_all({"deconvnet_crf": ("deconvnet", KERNEL)}, names, settings.crf, "mean")
    result = metrics.evaluate("deconvnet_crf", names, objects, settings.evaluation)
    counted = per_image.method_counts(names, objects, ("deconvnet_crf",), 2)
    return {
        "proposals": fingerprint(list(found), *found.values()),
        "scores": fingerprint(*((SCORES / "deconvnet" / f"{name}.npz").read_bytes() for name in names)),
        "crf": fingerprint(*((PREDICTIONS / "deconvnet_crf" / f"{name}.png").read_bytes() for name in names)),
        "files": fingerprint(sorted(path.name for path in (PREDICTIONS / "deconvnet_crf").iterdir())),
        "evaluation": fingerprint(result.summary, result.per_class, metrics.method_confusion("deconvnet_crf", names)),
        "counts": fingerprint(list(counted), *counted.values()),
        "calibration": fingerprint(calibration.of_method("deconvnet", names, "mean")),
    }


class Killer(threading.Thread):
    """Ends a worker with SIGKILL once `done` returns at least `some`."""

    def __init__(self, done: Callable[[], int], some: int):
        super().__init__(daemon=True)
        self.done, self.some = done, some
        self.start()

    def run(self) -> None:
        while (seen := self.done()) < self.some:
            time.sleep(0.002)
        self.seen = seen
        with Client(ADDRESS, set_as_default=False) as client:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)


def files(pattern: str) -> Callable[[], int]:
    return lambda: len(list(ROOT.glob(pattern)))


def count() -> dict:
    """Slow tasks that write a line each, with a worker killed when a third of them have begun."""
    log = ROOT / "log.txt"
    log.touch()

    def task(number: int) -> int:
        with log.open("a") as file:
            file.write(f"{number}\n")
        time.sleep(0.05)
        return number**2

    killer = Killer(lambda: len(log.read_text().split()), 20)
    results = list(parallel.process_map(task, range(60), "counted"))
    killer.join(60)
    begun = Counter(map(int, log.read_text().split()))
    return {"results": results, "begun": len(begun), "again": sum(times > 1 for times in begun.values())}


def main() -> None:
    torch.set_num_threads(1)  # as a worker has: another number may change last digits
    for module in (metrics, per_image, calibration):
        module.MIN_IMAGES_PER_WORKER = 1  # otherwise so few images stay in one process
    results = {}
    for cores in ("1", "2"):
        os.environ["DECONVNET_CORES"] = cores
        results[cores] = work(f"{cores} cores")
    os.environ["DECONVNET_CLUSTER"] = ADDRESS
    results["cluster"] = work("cluster")
    shutil.rmtree(PREDICTIONS / "deconvnet_crf")
    killers = [Killer(files(pattern), 3) for pattern in ("checkpoints/killed/*/*.npy", "data/predictions/*_crf/*.png")]
    results["killed"] = work("killed")
    results["done when killed"] = [killer.seen for killer in killers if not killer.join(60)]
    print(json.dumps(results | count()))


if __name__ == "__main__":
    main()

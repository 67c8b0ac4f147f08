"""The processes of a machine, a cluster, and a cluster that loses workers give the same bytes, each image once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import PROGRAMS, call

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.data import icon_scenes, voc
from deconvnet.networks import build, weights
from deconvnet.utils import parallel

pytestmark = pytest.mark.slow  # two clusters
SCRIPT = Path(__file__).with_name("on_cluster.py")
IMAGES = 12


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project of its own: a few scenes, their objects, and a DeconvNet of random weights."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "src" / "deconvnet").mkdir(parents=True)
    (folder / "dvc.yaml").touch()
    (folder / "params.yaml").write_text(params.dump(params.compose("smoke")))
    icon_scenes.generate(folder / "data" / "voc", train=0, dev=0, val=IMAGES)
    names = voc.read_list(folder / "data" / "voc", "val")
    objects = voc.objects(folder / "data" / "voc", names).assign(split="val")
    objects.to_csv(folder / "data" / "objects.csv", index=False)
    torch.manual_seed(0)
    net = build.make_deconvnet(params.validate(params.compose("smoke"), "smoke"))
    for parameter in net.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    weights.save(net, "deconvnet", folder / "models")
    return folder


@pytest.fixture(scope="module")
def cluster(project) -> str:
    """The address of a scheduler with two workers in that project, started as docs/scaling.md says."""
    place = project / "scheduler.json"
    local = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(place)]
    started = [
        subprocess.Popen(
            [PROGRAMS / "dask", *command, *local],
            cwd=project,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "DASK_TEMPORARY_DIRECTORY": str(project)},
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for command in (
            ["scheduler", "--port", "0"],
            ["worker", "--nworkers", "2", "--nthreads", "1", "--local-directory", str(project)],
        )
    ]
    try:
        for _ in range(600):
            if place.is_file():
                break
            time.sleep(0.1)
        yield json.loads(place.read_text())["address"]
    finally:
        for process in started:  # each with its own
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def results(project, cluster) -> dict:
    done = call(project, sys.executable, str(SCRIPT), DECONVNET_CLUSTER=cluster, PYTHONPATH=str(ROOT / "src"))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("where", ["2", "cluster", "killed"])
def test_the_results_are_those_of_one_process(results, where):
    assert set(results["1"]) == {"proposals", "crf", "files", "evaluation", "counts", "calibration", "scores"}
    assert results[where] == results["1"]


def test_workers_were_killed_during_the_work(results):
    assert all(3 <= done < IMAGES for done in results["done when killed"])


def test_nothing_is_lost_or_doubled(results):
    """Only what the killed worker had begun is run again: joblib gives a worker a few tasks ahead, not all."""
    assert results["results"] == [number**2 for number in range(60)]
    assert results["begun"] == 60
    assert 1 <= results["again"] < 20


def refused(monkeypatch, address: str) -> str:
    monkeypatch.setenv("DECONVNET_CLUSTER", address)
    with pytest.raises(UserError) as error:
        list(parallel.process_map(abs, [1, -2], "refused"))
    return str(error.value)


def test_workers_in_another_folder_are_refused(project, cluster, monkeypatch):
    assert f"A worker of the cluster runs in {project}, this stage in {ROOT}." in refused(monkeypatch, cluster)
    monkeypatch.setattr(parallel, "ROOT", project)
    monkeypatch.setenv("DECONVNET_CLUSTER", cluster)
    assert list(parallel.process_map(abs, [1, -2], "accepted")) == [1, 2]
    monkeypatch.setattr(parallel, "CODE_FINGERPRINT", "of yesterday")
    assert "runs other code" in refused(monkeypatch, cluster)


def test_a_missing_cluster_is_named(monkeypatch):
    monkeypatch.setattr(parallel, "CLUSTER_TIMEOUT_S", 0.5)
    assert "no dask scheduler answers at tcp://127.0.0.1:1 (" in refused(monkeypatch, "tcp://127.0.0.1:1")
    assert "no dask scheduler answers at cluster (" in refused(monkeypatch, "cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install 'deconvnet[cluster]'" in refused(monkeypatch, "tcp://127.0.0.1:1")


def test_few_items_stay_in_this_process(monkeypatch):
    monkeypatch.setenv("DECONVNET_CLUSTER", "tcp://127.0.0.1:1")  # nobody is asked
    here = list(parallel.process_map(lambda item: os.getpid(), range(5), "few", min_items_per_worker=3))
    assert here == [os.getpid()] * 5
    assert list(parallel.process_map(abs, [], "none")) == []


@pytest.fixture
def four_threads(monkeypatch):
    """Of arithmetic, on a CPU."""
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_two_images_share_the_threads_and_keep_their_order(four_threads):
    """Each task waits for the other, so they run together; the first ends last, and its result still comes first."""
    both = threading.Barrier(parallel.IMAGES_AT_ONCE, timeout=30)

    def task(item: int) -> tuple[int, int]:
        both.wait()
        time.sleep(0.1 * (item == 0))
        return item, torch.get_num_threads()

    found = list(parallel.thread_map(task, range(4), "together"))
    assert found == [(item, 4 // parallel.IMAGES_AT_ONCE) for item in range(4)]
    assert torch.get_num_threads() == 4


def test_a_failing_task_ends_the_others(four_threads):
    begun = []

    def task(item: int) -> None:
        begun.append(item)
        time.sleep(0.02)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(parallel.thread_map(task, range(100), "together"))
    assert len(begun) < 50
    assert torch.get_num_threads() == 4

"""Over the processes of a machine, over a cluster, and over one that loses workers: the same bytes, each image once."""

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
    voc.objects(folder / "data" / "voc", names).to_csv(folder / "data" / "objects.csv", index=False)
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
def told(project, cluster) -> dict:
    done = call(project, sys.executable, str(SCRIPT), DECONVNET_CLUSTER=cluster, PYTHONPATH=str(ROOT / "src"))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("where", ["2", "cluster", "killed"])
def test_the_results_are_those_of_one_process(told, where):
    assert set(told["1"]) == {"proposals", "crf", "files", "evaluation", "samples", "calibration", "scores"}
    assert told[where] == told["1"]


def test_workers_were_killed_amid_the_work(told):
    assert all(3 <= done < IMAGES for done in told["done when killed"])


def test_nothing_is_lost_or_doubled(told):
    assert told["results"] == [number**2 for number in range(60)]
    assert told["begun"] == 60
    assert 1 <= told["again"] <= 8  # what the killed worker had begun, and nothing else


def refused(monkeypatch, address: str) -> str:
    monkeypatch.setenv("DECONVNET_CLUSTER", address)
    with pytest.raises(UserError) as error:
        list(parallel.process_map(abs, [1, -2], "refused"))
    return str(error.value)


def test_a_cluster_that_works_elsewhere_is_refused(project, cluster, monkeypatch):
    assert f"A worker of the cluster runs in {project}, this stage in {ROOT}." in refused(monkeypatch, cluster)
    monkeypatch.setattr(parallel, "ROOT", project)
    monkeypatch.setenv("DECONVNET_CLUSTER", cluster)
    assert list(parallel.process_map(abs, [1, -2], "accepted")) == [1, 2]
    monkeypatch.setattr(parallel, "CODE_FINGERPRINT", "of yesterday")
    assert "other code" in refused(monkeypatch, cluster)


def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(parallel, "CLUSTER_TIMEOUT_S", 0.5)
    assert "no scheduler of dask answers at tcp://127.0.0.1:1 (" in refused(monkeypatch, "tcp://127.0.0.1:1")
    assert "no scheduler of dask answers at cluster (" in refused(monkeypatch, "cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install 'deconvnet[cluster]'" in refused(monkeypatch, "tcp://127.0.0.1:1")


def test_few_items_stay_in_this_process(monkeypatch):
    monkeypatch.setenv("DECONVNET_CLUSTER", "tcp://127.0.0.1:1")  # nobody is asked
    here = list(parallel.process_map(lambda item: os.getpid(), range(5), "few", least=3))
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


def test_lanes_share_the_threads_of_arithmetic_and_keep_the_order(four_threads):
    """Each waits for the other here, so they run at once; the first item ends last, and comes first all the same."""
    both = threading.Barrier(parallel.IMAGES_AT_ONCE, timeout=30)

    def task(item: int) -> tuple[int, int]:
        both.wait()
        time.sleep(0.1 * (item == 0))
        return item, torch.get_num_threads()

    found = list(parallel.thread_map(task, range(4), "lanes"))
    assert found == [(item, 4 // parallel.IMAGES_AT_ONCE) for item in range(4)]
    assert torch.get_num_threads() == 4


def test_what_fails_in_a_lane_ends_them(four_threads):
    begun = []

    def task(item: int) -> None:
        begun.append(item)
        time.sleep(0.02)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(parallel.thread_map(task, range(100), "lanes"))
    assert len(begun) < 50
    assert torch.get_num_threads() == 4

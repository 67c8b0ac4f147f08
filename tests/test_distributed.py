"""Several processes share a training: the same result as of one, written by rank 0, and no kill that goes unsaid."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from safetensors.torch import load_file
from shared_training import POINTS, SOLVER, Noted, batches, network

from deconvnet.config import machine, params
from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.images.batches import Batches
from deconvnet.pipeline.run_notebook import up_to_the_training
from deconvnet.training import batch_norm, curve, loop, shared
from deconvnet.utils import resume

# Sums of float32 in another order: how far losses and weights may be apart after 30 iterations, relative and absolute.
NEAR = {"rtol": 1e-5, "atol": 1e-6}
MACHINE = {
    "DECONVNET_DEVICE": "cpu",
    "DECONVNET_WORKERS": "0",
    "DECONVNET_PRECISION": "32-true",
    "DECONVNET_THREADS": "1",
    "DECONVNET_CHECKPOINT": "0",
    "OMP_WAIT_POLICY": "PASSIVE",
}
CELLS = [
    "stage = 0",
    "from pathlib import Path\n"
    "from safetensors.torch import save_file\n"
    "from shared_training import POINTS, SOLVER, Noted, batches, kill, network\n"
    "from deconvnet import machine, training\n"
    "net, watch = network(), batches(steps=2)",
    'with training.live_curve("tiny") as log:\n'
    "    both = lambda step, row: (log(step, row), kill(step, row))\n"
    "    curve = training.train(net, batches(Noted), SOLVER, watch=watch, log=both, points=POINTS)",
    "training.fix_batch_norm(net, batches().like(SOLVER.bn_batches, SOLVER.bn_batch_size))\n"
    'save_file({k: v.contiguous() for k, v in net.state_dict().items()}, "tiny.safetensors")\n'
    'curve.to_csv("curve.csv", index=False)\n'
    'print("rank", machine.rank(), file=Path("written").open("a"))\n'
    'print("rank", machine.rank(), "of", machine.world())',
]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    for name, value in MACHINE.items():
        monkeypatch.setenv(name, value)


def project(folder: Path) -> Path:
    """A project of which nothing is real but the notebook `train`."""
    (folder / "src" / "deconvnet").mkdir(parents=True)
    (folder / "dvc.yaml").touch()
    (folder / "params.yaml").write_text(params.dump(params.compose("smoke")))  # a batch of stage 1 has 2 parts
    (folder / "notebooks").mkdir()
    cells = [new_code_cell(source) for source in CELLS]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "notebooks" / "train.ipynb")
    return folder


def run(folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """The notebook as a stage of DVC, in two processes."""
    path = f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"
    return subprocess.run(
        [sys.executable, "-m", "deconvnet.pipeline.run_notebook", "train", "train.ipynb", "-p", "stage", "1"],
        cwd=folder,
        env=os.environ | MACHINE | {"PYTHONPATH": path, "DVC_STAGE": "tiny", "DECONVNET_PROCESSES": "2"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def drawn(folder: Path, rank: int) -> list[int]:
    """The batches that a rank has drawn, one after another, in all runs."""
    return [int(step) for step in (folder / f"drawn-{rank}").read_text().split()]


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """Where two processes have trained that nobody disturbed."""
    folder = project(tmp_path_factory.mktemp("shared"))
    done = run(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def result(folder: Path) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    return pd.read_csv(folder / "curve.csv"), load_file(folder / "tiny.safetensors")


def alone(kind: type[Batches] = Batches) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """What the notebook does, in this process."""
    net = network()
    curve = loop.train(net, batches(kind), SOLVER, watch=batches(steps=2), points=POINTS)
    batch_norm.fix_batch_norm(net, batches().like(SOLVER.bn_batches, SOLVER.bn_batch_size))
    return curve, dict(net.state_dict())


def assert_near(
    curve: pd.DataFrame, weights: dict, other_curve: pd.DataFrame, other_weights: dict, **tolerance
) -> None:
    pd.testing.assert_frame_equal(curve, other_curve, **tolerance)
    torch.testing.assert_close(weights, other_weights, **tolerance)


def test_two_processes_that_take_their_parts_at_once_end_like_one(tmp_path):
    done = run(project(tmp_path), DECONVNET_PARTS="2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert_near(*result(tmp_path), *alone(), **NEAR)


def test_two_processes_end_like_one(shared):
    assert_near(*result(shared), *alone(), **NEAR)
    assert drawn(shared, 0) == drawn(shared, 1) == list(range(SOLVER.iterations))


def test_each_process_matters(shared):
    """With only the parts that rank 0 runs, 0 and 2, the weights are others."""
    size = SOLVER.batch_size // SOLVER.micro_batches
    half = [tuple(torch.cat([x[:size], x[2 * size : 3 * size]]) for x in batch) for batch in batches()]
    net = network()
    loop.train(net, half, SOLVER.model_copy(update={"micro_batches": 2}), watch=batches(steps=2))
    ours, whole = net[1].weight.detach(), result(shared)[1]["1.weight"]
    assert (ours - whole).abs().max() > 100 * NEAR["rtol"] * whole.abs().max()


def test_rank_0_alone_writes(shared):
    assert (shared / "written").read_text() == "rank 0\n"
    notebook = nbformat.read(shared / "train.ipynb", as_version=4)
    assert notebook.cells[-1].outputs[0].text == "rank 0 of 2\n"
    assert not list(shared.glob("*.failed.ipynb"))
    losses = shared / "reports" / "curves" / "tiny" / "plots" / "metrics" / "loss.tsv"
    steps = pd.read_csv(losses, sep="\t")["step"].tolist()
    assert steps == pd.read_csv(shared / "curve.csv")["step"].tolist()  # one row each
    assert not (shared / "checkpoints" / "tiny").exists()  # it has ended well
    assert "train" in json.loads((shared / "reports" / "provenance.json").read_text())["seconds"]


def test_a_killed_process_ends_the_run_which_then_goes_on(shared, tmp_path, monkeypatch):
    """First what runs rank 1's cells, then what runs rank 0's notebook; two processes end it, or one alone."""
    folder = project(tmp_path / "killed")
    for order, said in (
        ("kill-12-1-kernel", "rank 1 of 2: The notebook's process was killed, by hand or because memory ran out."),
        ("kill-21-0-runner", "rank 0 of 2: It was killed by SIGKILL, and the others were ended."),
    ):
        (folder / order).touch()
        started = time.monotonic()
        done = run(folder)
        assert time.monotonic() - started < 120  # torch's own patience with a lost process is half an hour
        assert done.returncode == 1
        assert not (folder / order).exists()
        assert f"\ntrain: {said} Run the same command again: it goes on from the last checkpoint.\n" in done.stderr
        assert "Traceback" not in done.stderr
    left = shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
    done = run(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert drawn(folder, 0) == [*range(13), *range(12, 21), *range(20, 30)]
    assert_near(*result(folder), *result(shared), rtol=0, atol=0)

    code = json.loads((left / "tiny" / "1" / "made_from.json").read_text())["code"]
    monkeypatch.setattr(
        resume, "code_fingerprint", lambda: code
    )  # of the notebook's process, which loads less than pytest
    monkeypatch.setattr(resume, "CHECKPOINTS", left)
    monkeypatch.setattr(resume, "_claims", iter([1]))
    monkeypatch.setattr(resume, "_locks", locks := {})
    monkeypatch.setenv("DVC_STAGE", "tiny")
    monkeypatch.chdir(tmp_path)
    assert_near(*alone(Noted), *result(shared), **NEAR)
    assert drawn(tmp_path, 0) == [*range(20, 30)]
    locks["kernel"].close()


def test_an_orphan_of_the_launcher_does_not_begin(tmp_path):
    command = [
        sys.executable,
        "-m",
        "deconvnet.pipeline.run_notebook",
        "train",
        str(tmp_path / "train.ipynb"),
        "-p",
        "stage",
        "1",
    ]
    variables = {"DVC_STAGE": "tiny", "RANK": "1", "WORLD_SIZE": "2", shared.LAUNCHER: "1"}
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.stderr == "DVC has ended before its stage began.\n"


def test_parts_that_cannot_be_shared_evenly(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match=r"4 parts .* by 3 processes: set DECONVNET_PROCESSES to one of 1, 2, 4."):
        loop.train(network(), batches(), SOLVER, watch=batches(steps=2))


def test_which_notebooks_are_shared(monkeypatch, tmp_path, capsys):
    settings = params.validate(params.compose("voc2012"), "voc2012")
    monkeypatch.setattr(params, "load", lambda: settings)
    assert shared.number_for("train", {"stage": 1}) == 1  # DECONVNET_PROCESSES is not set
    monkeypatch.setenv("DECONVNET_PROCESSES", "4")
    assert [shared.number_for("train", {"stage": stage}) for stage in (1, 2)] == [4, 4]
    assert shared.number_for("train_fcn", {}) == 4
    assert shared.number_for("infer", {}) == 1
    assert shared.number_for("backbone", {}) == 1  # its weights are a download
    assert capsys.readouterr().err == ""
    assert shared.number_for("boundaries", {}) == 1
    assert (
        "boundaries: a batch that runs as one part (micro_batches) is trained by one process."
        in capsys.readouterr().err
    )
    monkeypatch.setenv("DECONVNET_PROCESSES", "8")
    with pytest.raises(UserError, match="20 parts"):
        shared.number_for("train_fcn", {})


@pytest.mark.parametrize("name", shared.TRAININGS)
def test_every_rank_runs_a_notebook_up_to_its_training(name):
    cells = up_to_the_training(ROOT / "notebooks" / f"{name}.ipynb").cells
    assert "training.train(" in cells[-1].source
    assert not any("backbone.save(" in cell.source or "write_json(" in cell.source for cell in cells)


def test_the_machine_is_shared_too(monkeypatch):
    for name in ("DECONVNET_THREADS", "DECONVNET_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    alone = machine.threads()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert machine.threads() == max(alone // 2, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("DECONVNET_DEVICE", "cuda")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert machine.device() == torch.device("cuda", 1)
    found = {}
    for cores in (1, 6, 16, 64):
        monkeypatch.setenv("DECONVNET_CORES", str(cores))
        found[cores] = machine.workers()
    assert found == {1: 0, 6: 2, 16: 7, 64: 8}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="DECONVNET_PROCESSES is 2, but torch sees 1 GPU"):
        machine.device()


def test_the_lock_is_rank_0s(monkeypatch, tmp_path):
    monkeypatch.setattr(resume, "CHECKPOINTS", tmp_path)
    monkeypatch.setenv("DVC_STAGE", "tiny")
    monkeypatch.setenv("RANK", "1")
    resume.hold_stage("kernel")
    with curve.live_curve("tiny") as log:
        log(1, {"loss": 0.0})
    assert list(tmp_path.iterdir()) == []

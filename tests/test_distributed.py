"""Several processes share a training: they end like one process, rank 0 alone writes, and a kill loses nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from safetensors.torch import load_file
from shared_training import SOLVER, tiny_recipe
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from deconvnet.config import machine, params
from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.training import batch_norm, curve, launch, loop
from deconvnet.utils import resume

# Sums of float32 in another order: how far losses and weights may differ after 30 iterations, relative and absolute.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
MACHINE = {
    "DECONVNET_DEVICE": "cpu", "DECONVNET_WORKERS": "0", "DECONVNET_PRECISION": "32-true", "DECONVNET_THREADS": "1",
    "DECONVNET_CHECKPOINT": "0", "OMP_WAIT_POLICY": "PASSIVE",
}  # fmt: skip
CELL = """
import shared_training
from safetensors.torch import save_file
from deconvnet.training import batch_norm, launch
launch.SCRIPT = "shared_training"
recipe = shared_training.tiny_recipe()
recipe.net[1].weight.data *= 2  # the network is not as its recipe makes it: an earlier phase has trained it
curve = launch.train(recipe)
batch_norm.fix_batch_norm(recipe.net, recipe.for_batch_norm())
save_file({k: v.contiguous() for k, v in recipe.net.state_dict().items()}, "tiny.safetensors")
curve.to_csv("curve.csv", index=False)
"""


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    for name, value in MACHINE.items():
        monkeypatch.setenv(name, value)


def make_project(folder: Path) -> Path:
    """A project with one notebook, which trains the tiny recipe."""
    (folder / "src" / "deconvnet").mkdir(parents=True)
    (folder / "dvc.yaml").touch()
    (folder / "params.yaml").write_text(params.dump(params.compose("smoke")))
    (folder / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell(CELL)]), folder / "notebooks" / "tiny.ipynb")
    return folder


def run(folder: Path, processes: int = 2, **variables: str) -> subprocess.CompletedProcess:
    """Runs the notebook as a stage of DVC."""
    variables |= {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}", "DVC_STAGE": "tiny"}
    return subprocess.run(
        [sys.executable, "-m", "deconvnet.pipeline.run_notebook", "tiny", "tiny.ipynb"],
        cwd=folder, env=os.environ | MACHINE | {"DECONVNET_PROCESSES": str(processes)} | variables,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def sampled(folder: Path, rank: int) -> list[int]:
    """The batches that a rank has made, in order, in all runs."""
    return [int(step) for step in (folder / f"sampled-{rank}").read_text().split()]


def result(folder: Path) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    return pd.read_csv(folder / "curve.csv"), load_file(folder / "tiny.safetensors")


def assert_close(found: tuple[pd.DataFrame, dict], expected: tuple[pd.DataFrame, dict], **tolerance: float) -> None:
    pd.testing.assert_frame_equal(found[0], expected[0], **tolerance)
    torch.testing.assert_close(found[1], expected[1], **tolerance)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> tuple[Path, str]:
    """The folder of an undisturbed training by two processes, and what was printed."""
    folder = make_project(tmp_path_factory.mktemp("shared"))
    done = run(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stderr


def train_alone(recipe, batches=None, **changes) -> tuple[pd.DataFrame, dict[str, torch.Tensor]]:
    """The notebook's training in this process."""
    recipe.net[1].weight.data *= 2
    solver = SOLVER.model_copy(update=changes)
    found = loop.train(recipe.net, batches or recipe.batches["train"], solver, validation=recipe.validation())
    batch_norm.fix_batch_norm(recipe.net, recipe.for_batch_norm())
    return found, recipe.net.state_dict()


@pytest.mark.slow
def test_two_processes_end_like_one(shared, tmp_path, monkeypatch):
    folder, printed = shared
    monkeypatch.chdir(tmp_path)
    assert_close(result(folder), train_alone(tiny_recipe()), **CLOSE)
    assert sampled(folder, 0) == sampled(folder, 1) == list(range(SOLVER.iterations))
    assert f"{SOLVER.iterations}/{SOLVER.iterations}" in printed  # the progress bar


@pytest.mark.slow
def test_each_process_matters(shared, tmp_path, monkeypatch):
    """With rank 0's micro-batches alone, 0 and 2, the weights are others."""
    monkeypatch.chdir(tmp_path)
    recipe, size = tiny_recipe(), SOLVER.batch_size // SOLVER.micro_batches
    half = [tuple(torch.cat([x[:size], x[2 * size : 3 * size]]) for x in batch) for batch in recipe.batches["train"]]
    _, weights = train_alone(recipe, half, micro_batches=2)
    expected = result(shared[0])[1]["1.weight"]
    assert (weights["1.weight"] - expected).abs().max() > 100 * CLOSE["rtol"] * expected.abs().max()


@pytest.mark.slow
def test_rank_0_alone_writes(shared):
    folder, _ = shared
    assert set((folder / "writers").read_text().splitlines()) == {"0 checkpoint", "0 result"}
    losses = pd.read_csv(folder / "reports/curves/tiny/plots/metrics/loss.tsv", sep="\t")
    assert losses["step"].tolist() == pd.read_csv(folder / "curve.csv")["step"].tolist()
    assert not (folder / "checkpoints" / "tiny").exists()  # the stage has finished
    assert "tiny" in json.loads((folder / "reports" / "provenance.json").read_text())["seconds"]


@pytest.mark.slow
def test_two_processes_with_two_micro_batches_at_once_end_like_one(tmp_path, monkeypatch):
    done = run(make_project(tmp_path / "project"), DECONVNET_MICRO_BATCHES="2")
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.chdir(tmp_path)
    assert_close(result(tmp_path / "project"), train_alone(tiny_recipe()), **CLOSE)


KILLED = (
    "One of the training processes was ended by SIGKILL, by hand or for lack of memory, and the others were ended too."
)


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_the_next_run_resumes(shared, tmp_path):
    """Rank 1, rank 0, and the kernel that started them. At the end one process resumes a copy of what two have left."""
    folder = make_project(tmp_path / "killed")
    for order, message in (
        ("kill-8-1", KILLED), ("kill-15-0", KILLED), ("kill-22-0-parent", "The notebook's process was killed"),
    ):  # fmt: skip
        (folder / order).touch()
        done = run(folder)
        assert done.returncode == 1
        assert not (folder / order).exists()
        assert f"\ntiny: {message}" in done.stderr, done.stderr[-3000:]
        assert "Run the same command again" in done.stderr
        assert "Traceback" not in done.stderr
    copy = shutil.copytree(folder, tmp_path / "copy")
    for number, other in ((2, folder), (1, copy)):
        done = run(other, number)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Another process" not in done.stderr  # the ranks have ended with their kernel
        assert "Starting anew" not in done.stderr, done.stderr[-3000:]
        assert sampled(other, 0).count(0) == 1
    assert_close(result(folder), result(shared[0]), rtol=0, atol=0)
    assert_close(result(copy), result(shared[0]), **CLOSE)


@pytest.mark.slow
def test_a_users_error_in_one_process_is_that_of_the_run(tmp_path):
    (make_project(tmp_path) / "refused").touch()
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("\ntiny: Rank 1 refuses.\n\n"), done.stderr[-3000:]
    assert "Traceback" not in done.stderr


def failure(folder: Path, rank: int, exitcode: int, message: str = "") -> ProcessFailure:
    path = folder / str(rank)
    if message:
        extra = {"timestamp": "1", "py_callstack": f"Traceback of rank {rank}"}
        path.write_text(json.dumps({"message": {"message": message, "extraInfo": extra}}))
    return ProcessFailure(local_rank=rank, pid=1, exitcode=exitcode, error_file=str(path))


def test_which_of_several_errors_is_shown(tmp_path):
    """Other processes often fail because the first has ended: a user's error or a kill is the cause."""
    lost, refused = failure(tmp_path, 0, 1, "RuntimeError: connection lost"), failure(tmp_path, 1, 1, "UserError: Why.")
    killed, full = failure(tmp_path, 2, -9), failure(tmp_path, 3, 1, "OSError: [Errno 28] No space left: '/a'")
    for failures, kind, message in (
        ([lost, refused, killed], UserError, r"^Why\.$"),
        ([lost, killed], UserError, f"^{KILLED}"),
        ([lost], RuntimeError, "connection lost\nTraceback of rank 0"),
        ([full], RuntimeError, r"\[Errno 28\] No space left: '/a'"),
        ([failure(tmp_path, 4, 2)], RuntimeError, "ended early"),
    ):
        with pytest.raises(kind, match=message):
            raise launch.shared_error(ChildFailedError("tiny", dict(enumerate(failures))))


def test_unequal_sharing_is_refused_before_training(monkeypatch):
    message = r"4 micro-batches .* by 3 processes: set DECONVNET_PROCESSES to one of 1, 2, 4\."
    monkeypatch.setenv("DECONVNET_PROCESSES", "3")
    with pytest.raises(UserError, match=message):
        launch.train(tiny_recipe())
    monkeypatch.setenv("DECONVNET_PROCESSES", "4")
    monkeypatch.setenv("DECONVNET_TORCHRUN", "--nnodes=3 --rdzv-endpoint=host")
    with pytest.raises(UserError, match="is 4, which 3 machines cannot share evenly"):
        launch.train(tiny_recipe())
    monkeypatch.setenv("WORLD_SIZE", "3")  # as torchrun started by hand sets it
    with pytest.raises(UserError, match=message):
        loop.train(tiny_recipe().net, [], SOLVER, validation=[])


def test_how_many_processes_train(monkeypatch, capsys):
    assert launch.num_processes(SOLVER) == 1  # DECONVNET_PROCESSES is not set
    monkeypatch.setenv("DECONVNET_PROCESSES", "4")
    assert launch.num_processes(SOLVER) == 4
    assert launch.num_processes(SOLVER.model_copy(update={"iterations": 0})) == 1
    assert capsys.readouterr().err == ""
    assert launch.num_processes(SOLVER.model_copy(update={"micro_batches": 1})) == 1
    assert capsys.readouterr().err == "A batch of one micro-batch is trained by one process.\n"


def test_processes_share_the_machine(monkeypatch):
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


def test_rank_1_takes_no_lock_and_writes_no_curve(monkeypatch, tmp_path):
    monkeypatch.setattr(resume, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(curve, "CURVES", tmp_path)
    monkeypatch.setenv("DVC_STAGE", "tiny")
    monkeypatch.setenv("RANK", "1")
    resume.lock_stage()
    with curve.live_curve("tiny") as log:
        log({"step": 1, "loss": 0.0})
    assert list(tmp_path.iterdir()) == []

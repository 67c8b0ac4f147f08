"""A kill loses nothing: trainings end with the same bits, finished images are kept, outdated work is discarded."""

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from conftest import call
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from deconvnet import DeconvNet
from deconvnet.config import errors, params
from deconvnet.config.paths import ROOT
from deconvnet.data import voc
from deconvnet.images import boxes, store
from deconvnet.inference import crf, score_split
from deconvnet.proposals import boundaries, edge_boxes
from deconvnet.report import figures
from deconvnet.training import curve
from deconvnet.utils import files, parallel, resume

SCRIPT = Path(__file__).with_name("kill_training.py")


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """The stage "tiny", which runs in this process; call it to start the stage again, as in a new process."""
    monkeypatch.setattr(resume, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setenv("DVC_STAGE", "tiny")

    def start_again() -> None:
        if resume._lock:
            resume._lock.close()
        resume._lock = None

    start_again()
    yield start_again
    start_again()


# Training


@pytest.mark.slow
def test_a_training_that_is_killed_ends_with_the_same_bits(tmp_path):
    (tmp_path / "src" / "deconvnet").mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "DECONVNET_CHECKPOINT": "0", "DECONVNET_DEVICE": "cpu"}
    done = subprocess.run(
        [sys.executable, SCRIPT, "1"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout)
    assert summary["kills"] >= 20
    assert summary["positions"] >= 8  # different iterations from which it resumed
    assert summary["same"]


# Folders for unfinished work


def test_unfinished_work_is_found_by_its_name(stage):
    first = resume.resume_dir("Work", lambda: {"data": "a"})
    (first / "kept").write_text("work")
    stage()
    other = resume.resume_dir("More work", lambda: {"data": "a"})
    assert list(other.iterdir()) == [other / "inputs.json"]
    assert resume.resume_dir("Work", lambda: {"data": "a"}) == first
    assert (first / "kept").read_text() == "work"
    resume.clear()
    assert not first.exists()


@pytest.mark.parametrize("changed", ["data", "code"])
def test_outdated_work_is_discarded_and_the_reason_is_printed(stage, tmp_path, monkeypatch, capsys, changed):
    inputs, output = {"data": "a", "settings": "1"}, tmp_path / "output"
    folder = resume.resume_dir("Training", lambda: inputs, [output])
    for place in (folder, output):
        (place / "kept").write_text("work")
    assert capsys.readouterr().err == ""
    stage()
    if changed == "data":
        inputs |= {"data": "b"}
    else:
        monkeypatch.setattr(resume, "code_fingerprint", lambda: "other")
    assert resume.resume_dir("Training", lambda: inputs, [output]) == folder
    assert capsys.readouterr().err == f"Training: the interrupted run had other {changed}. Starting anew.\n"
    assert not (folder / "kept").exists()
    assert not (output / "kept").exists()


def test_only_modules_that_can_change_a_number_are_part_of_the_code(monkeypatch, tmp_path):
    before, other = resume.code_fingerprint(), tmp_path / "other.py"
    other.write_text("# other code")
    for module, matters in ((figures, False), (errors, False), (boxes, True)):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__file__", str(other))
            assert (resume.code_fingerprint() != before) == matters, module


def test_outside_of_a_stage_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "old").touch()
    assert resume.resume_dir("Work", dict, [tmp_path / "output"]) is None
    assert list((tmp_path / "output").iterdir()) == []


# The lock of a stage


def test_a_second_process_of_a_stage_waits_for_the_first(stage, capsys):
    folder = resume.CHECKPOINTS
    first = os.fork()
    if first == 0:
        resume.lock_stage()
        (folder / "locked").touch()
        time.sleep(1)
        (folder / "finished").touch()
        os._exit(0)
    while not (folder / "locked").exists():
        time.sleep(0.01)
    resume.lock_stage()
    assert (folder / "finished").exists()
    assert capsys.readouterr().err == "Another process is still running tiny: waiting until it ends.\n"
    os.waitpid(first, 0)


def test_work_and_curves_begin_with_the_lock(stage, monkeypatch):
    calls = []
    monkeypatch.setattr(resume, "lock_stage", lambda: calls.append("lock"))
    monkeypatch.setattr(curve, "Live", lambda *a, **k: calls.append("live") or contextlib.nullcontext())
    with curve.live_curve("tiny"):
        resume.resume_dir("Work", lambda: calls.append("inputs") or {})
    assert calls == ["lock", "live", "lock", "inputs"]


def make_project(folder: Path, cell: str) -> None:
    """A project with the notebook `work`, which has one cell."""
    for name in ("src/deconvnet", "notebooks", "reports/notebooks", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "dvc.yaml").touch()
    nbformat.write(new_notebook(cells=[new_code_cell(cell)]), folder / "notebooks" / "work.ipynb")


RUN = ("deconvnet.pipeline.run_notebook", "work", "reports/notebooks/work.ipynb")
LONG_WORK = """
import time
from pathlib import Path
from deconvnet.utils import resume
resume.lock_stage()
Path("running").touch()
time.sleep(60)
Path("finished").touch()
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["the runner", "its parent"])
def test_a_notebook_ends_with_what_runs_it(stage, tmp_path, victim):
    """Its kernel holds the stage's lock until it ends: here, before the notebook has finished."""
    make_project(tmp_path, LONG_WORK)
    command = [sys.executable, "-m", *RUN]
    if victim == "its parent":  # instead of DVC
        command = ["sh", "-c", '"$@" & wait', "sh", *command]
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    while not (tmp_path / "running").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resume.lock_stage()
    assert not (tmp_path / "finished").exists()


# Files


def test_a_write_that_fails_leaves_the_old_content(tmp_path):
    path = tmp_path / "state.pt"
    files.write_atomic(path, b"old")
    if os.fork() == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as if the disk were full after so many bytes
        try:
            files.write_atomic(path, bytes(2000))
        except OSError as error:
            os._exit(0 if error.filename == str(path) else 2)
        os._exit(1)
    assert os.wait()[1] == 0
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_that_cannot_be_read_is_ignored(tmp_path, capsys):
    path = tmp_path / "state.pt"
    assert resume.load_checkpoint(path, "cpu") is None
    resume.save_checkpoint(path, {"step": 3, "net": {"weight": torch.arange(4.0)}})
    assert resume.load_checkpoint(path, "cpu")["step"] == 3
    path.write_bytes(path.read_bytes()[:-200])
    assert resume.load_checkpoint(path, "cpu") is None
    assert "cannot be read" in capsys.readouterr().err


def test_different_contents_have_different_fingerprints():
    values = [np.arange(6), np.arange(6).reshape(2, 3), np.arange(6.0), torch.arange(6), b"0", "0", 0, None, {"a": 0}]
    assert len({files.fingerprint(value) for value in values}) == len(values) - 1  # a tensor is taken as float
    assert files.fingerprint(1, 2) == files.fingerprint(1, 2) != files.fingerprint(2, 1)


def test_which_errors_are_explained_as_lack_of_space_or_permission(tmp_path):
    for number in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EFBIG):
        message = errors.cannot_write_message(OSError(number, os.strerror(number), "/a/b.json"))
        assert f"{os.strerror(number)}: '/a/b.json'. Finished work is kept" in message
    assert f"left on device in {ROOT}." in errors.cannot_write_message("[Errno 28] No space left on device")
    assert errors.cannot_write_message(FileNotFoundError(errno.ENOENT, "No such file", "a")) is None
    with pytest.raises(FileNotFoundError), errors.exit_on_user_error("it"):
        (tmp_path / "none").read_text()
    with pytest.raises(SystemExit, match=r"\nit: .*'/a'. Finished work is kept"), errors.exit_on_user_error("it"):
        raise PermissionError(errno.EACCES, "Permission denied", "/a")


# Finished images


@pytest.fixture
def scene(stage, tmp_path, monkeypatch):
    """Four photographs with a proposal, scores and labels each, tiny networks, and folders of their own."""
    names, rng, root = ["a", "b", "c", "d"], np.random.default_rng(0), tmp_path / "voc"
    for module in (crf, score_split):
        monkeypatch.setattr(module, "VOC", root)
    for name in ("SCORES", "PREDICTIONS", "BOUNDARIES"):
        for module in (store, crf):
            monkeypatch.setattr(module, name, tmp_path / name.lower(), raising=False)
    monkeypatch.setattr(score_split, "GROUP_SIZE", 1)
    monkeypatch.setattr(parallel, "IMAGES_AT_ONCE", 1)
    monkeypatch.setenv("DECONVNET_CORES", "1")  # in this process, where it can be interrupted
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    (root / voc.IMAGES).mkdir(parents=True)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(voc.image_path(root, name))
        voc.save_mask(voc.labels_path(root, name), rng.integers(0, 21, (24, 32)))
        store.save_scores("fcn8s", name, rng.normal(size=(21, 24, 32)))
    torch.manual_seed(0)
    net, boundary_net = DeconvNet(blocks=[(4, 1)] * 5, fc=8, size=32).eval(), boundaries.BoundaryNet([4, 6]).eval()
    settings = params.validate(params.compose("icons"), "icons")
    return SimpleNamespace(names=names, root=root, net=net, boundary_net=boundary_net, settings=settings)


def changed(settings, name: str, change: float):
    return settings.model_copy(update={name: getattr(settings, name) + change})


def score(scene, change: int):
    with torch.no_grad():
        scene.net.score.bias += change
    proposals = {name: np.array([[2, 2, 30, 22, 1.0]], np.float32) for name in scene.names}
    score_split.score_split("deconvnet", scene.net, scene.names, proposals, scene.settings.inference)
    return [store.read_scores("deconvnet", name).tolist() for name in scene.names]


def find_boundaries(scene, change: int):
    boundaries.find_boundaries(scene.boundary_net, scene.root, scene.names, [1.0, 0.5 + change])
    return [store.boundaries_path(name).read_bytes() for name in scene.names]


def propose(scene, change: int):
    settings = changed(scene.settings.proposals, "min_area", change)
    return [b.tolist() for b in edge_boxes.propose(scene.root, scene.names, settings, "gradient").values()]


def run_crf(scene, change: int):
    settings = changed(scene.settings.crf, "iterations", change)
    measure = lambda pairs: float(np.mean([labels == found for labels, found in pairs]))  # noqa: E731
    means = crf.compare_kernels(["fcn8s"], scene.names, settings, "mean", measure)
    crf.predict_all({"fcn8s_crf": ("fcn8s", settings.candidates[0])}, scene.names, settings, "mean")
    return means, [store.read_prediction("fcn8s_crf", name).tolist() for name in scene.names]


def times(folder: Path) -> dict[Path, int]:
    paths = [path for path in folder.rglob("*.*") if path.suffix in (".npz", ".npy", ".png")]
    return {path: path.stat().st_mtime_ns for path in paths if "voc" not in path.parts}


@pytest.mark.parametrize(
    ("work", "module", "function", "stop", "inputs"),
    [
        (score, score_split, "score_crops", 3, "weights"),
        (find_boundaries, boundaries, "boundary_probability", 3, "scales"),
        (propose, edge_boxes, "find_boxes", 3, "settings"),
        (run_crf, crf, "mean_field", 9, "settings"),  # of the third image, with the last kernel
        (run_crf, crf, "mean_field", 15, "settings"),  # of the third image, with the selected kernel
    ],
    ids=["scores", "boundaries", "proposals", "CRF kernels", "CRF"],
)
def test_finished_images_are_kept(scene, stage, tmp_path, monkeypatch, capsys, work, module, function, stop, inputs):
    calls, original = [], getattr(module, function)

    def count(*arguments):
        calls.append(arguments)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return original(*arguments)

    undisturbed = work(scene, 0)
    shutil.rmtree(resume.CHECKPOINTS)
    stage()
    before = times(tmp_path)
    monkeypatch.setattr(module, function, count)
    with pytest.raises(KeyboardInterrupt):
        work(scene, 0)
    kept = {path: written for path, written in times(tmp_path).items() if before.get(path) != written}
    assert kept
    stage()
    calls.clear()
    stop = None
    assert work(scene, 0) == undisturbed
    assert {path: times(tmp_path)[path] for path in kept} == kept
    resumed = len(calls)
    assert capsys.readouterr().err.count("Starting anew") == 0
    stage()
    calls.clear()
    work(scene, 1)
    assert 0 < resumed < len(calls)
    assert f"the interrupted run had other {inputs}. Starting anew." in capsys.readouterr().err


# Missing permissions

UNWRITABLE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 1)  # PR_CAPBSET_DROP of CAP_DAC_OVERRIDE: permissions hold for root too
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
"""
WORK = """
from deconvnet.config import paths
from deconvnet.utils import files, resume
resume.lock_stage()
files.write_atomic(paths.BOUNDARIES / "a.png", b"one image")
files.write_atomic(paths.MODELS / "net.safetensors", b"new weights")
"""
KEPT = "Finished work is kept: free some space there or make it writable, then run the same command again"


@contextlib.contextmanager
def unwritable(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o555)
    yield
    folder.chmod(0o755)


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["checkpoints", "reports/notebooks", "models", "reports"])
def test_an_unwritable_folder_is_explained_in_a_sentence(tmp_path, place):
    """The folder of a stage's lock, of its executed notebook, of the notebook's results, and of its duration."""
    make_project(tmp_path, WORK)
    weights, image = tmp_path / "models" / "net.safetensors", tmp_path / "data" / "boundaries" / "a.png"
    weights.write_bytes(b"old weights")

    def work():
        return call(tmp_path, "python", "-c", UNWRITABLE, *RUN, DVC_STAGE="work", PYTHONPATH=str(ROOT / "src"))

    with unwritable(tmp_path / place):
        done = work()
    assert done.returncode == 1, done.stderr[-2000:]
    assert re.search(rf"Permission denied: '(/.*/)?{place}/.*{KEPT}", done.stderr), done.stderr[-2000:]
    assert str(ROOT / "src") not in done.stderr  # no traceback of ours; a busy kernel.s end may print one
    assert image.exists() == (place in ("models", "reports"))
    assert weights.read_bytes() == (b"new weights" if place == "reports" else b"old weights")
    if place == "models":  # once it can be written, the same command succeeds
        assert work().returncode == 0
        assert (image.read_bytes(), weights.read_bytes()) == (b"one image", b"new weights")


def test_the_pipeline_explains_that_it_cannot_write(clone, tmp_path):
    project = shutil.copytree(clone, tmp_path / "project", ignore=shutil.ignore_patterns("runs", ".dvc"))
    before = contents(project)
    for place, profile in ((project / "runs", "smoke"), (project, "icons")):
        with unwritable(place):
            done = call(project, "python", "-c", UNWRITABLE, "deconvnet.pipeline.repro", "--profile", profile)
        assert done.returncode == 1
        assert re.search(rf"Permission denied: '{place}/.*{KEPT}", done.stderr), done.stderr[-2000:]
        assert "Traceback" not in done.stderr
    assert contents(project) == before

"""A kill loses nothing: trainings end bit by bit the same, finished images are kept, stale work is refused."""

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

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
from deconvnet.inference import aggregate, crf, score_split
from deconvnet.proposals import boundaries, edge_boxes, edges
from deconvnet.report import figures
from deconvnet.training import curve, loop
from deconvnet.utils import files, parallel, resume

SCRIPT = Path(__file__).with_name("kill_training.py")


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage "tiny" that runs in this process, with a folder of its own."""
    monkeypatch.setattr(resume, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setenv("DVC_STAGE", "tiny")
    restart()
    yield restart
    restart()


def restart() -> None:
    """What a new process starts with: no lock, and no claim yet."""
    resume._claims = iter(range(1, 100))
    for lock in resume._locks.values():
        lock.close()
    resume._locks.clear()


# Training


def test_a_training_that_is_killed_ends_with_the_same_bits(tmp_path):
    (tmp_path / "src" / "deconvnet").mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "DECONVNET_CHECKPOINT": "0", "DECONVNET_DEVICE": "cpu"}
    done = subprocess.run(
        [sys.executable, SCRIPT, "1"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["kills"] >= 20
    assert told["positions"] >= 8  # iterations from which it went on
    assert told["same"]


# Claims


def test_what_was_left_is_found_again(stage):
    place = resume.resume_dir("Work", lambda: {"data": "a"})
    (place / "kept").write_text("work")
    stage()
    assert (resume.resume_dir("Work", lambda: {"data": "a"}) / "kept").read_text() == "work"
    assert not (resume.resume_dir("More work", lambda: {"data": "a"}) / "kept").exists()  # another piece, another place


def test_stale_work_is_refused_with_its_reason(stage, tmp_path, capsys):
    output = tmp_path / "output"
    place = resume.resume_dir("Training", lambda: {"data": "a", "settings": "1"}, [output])
    for folder in (place, output):
        (folder / "kept").write_text("work")
    assert capsys.readouterr().err == ""
    stage()
    place = resume.resume_dir("Training", lambda: {"data": "b", "settings": "1"}, [output])
    assert "Training: what an interrupted run left was made with other data. It starts anew." in capsys.readouterr().err
    assert not (place / "kept").exists()
    assert not (output / "kept").exists()


def test_other_code_makes_work_stale(stage, monkeypatch, capsys):
    place = resume.resume_dir("Training", lambda: {})
    (place / "kept").write_text("work")
    stage()
    monkeypatch.setattr(resume, "code_fingerprint", lambda: "another")
    assert not (resume.resume_dir("Training", lambda: {}) / "kept").exists()
    assert "made with other code" in capsys.readouterr().err


def test_the_code_is_that_of_the_modules_that_matter(monkeypatch, tmp_path):
    before = resume.code_fingerprint()
    other = tmp_path / "other.py"
    other.write_text("# another")
    for module, matters in ((figures, False), (boxes, True)):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__file__", str(other))
            assert (resume.code_fingerprint() != before) == matters, module


def test_outside_of_a_stage_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "old").touch()
    assert resume.resume_dir("Work", dict, [tmp_path / "output"]) is None
    assert list((tmp_path / "output").iterdir()) == []


@pytest.mark.parametrize("part", ["runner", "kernel"])
def test_a_successor_waits_for_the_orphan(stage, part, capsys):
    folder = resume.CHECKPOINTS
    orphan = os.fork()
    if orphan == 0:
        resume.hold_stage(part)
        (folder / "held").touch()
        time.sleep(1)
        (folder / "last word").touch()
        os._exit(0)
    while not (folder / "held").exists():
        time.sleep(0.01)
    resume.hold_stage(part)
    assert (folder / "last word").exists()
    assert "Another process still works on tiny" in capsys.readouterr().err
    os.waitpid(orphan, 0)


def test_what_an_orphan_holds_no_claim_and_no_curve_touches(stage, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(resume, "hold_stage", asked.append)
    monkeypatch.setattr(loop, "Live", lambda *a, **k: asked.append("live") or contextlib.nullcontext())
    with curve.live_curve("tiny"):
        resume.resume_dir("Work", dict)
    assert asked == ["kernel", "live", "kernel"]


def test_an_orphan_of_dvc_does_not_begin(tmp_path):
    """Its parent ends while Python starts; whoever adopts it is of another session."""
    said = tmp_path / "said"
    command = f"{sys.executable} -m deconvnet.pipeline.run_notebook data {tmp_path}/out.ipynb 2> {said} &"
    subprocess.run(["setsid", "sh", "-c", command], env=os.environ | {"DVC_STAGE": "tiny"}, check=True)
    deadline = time.monotonic() + 60
    while not (said.exists() and said.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert said.read_text() == "DVC has ended before its stage began.\n"


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


def test_a_checkpoint_that_cannot_be_read_is_no_checkpoint(tmp_path, capsys):
    path = tmp_path / "state.pt"
    assert resume.load_checkpoint(path, "cpu") is None
    resume.save_checkpoint(path, {"step": 3, "net": {"weight": torch.arange(4.0)}})
    assert resume.load_checkpoint(path, "cpu")["step"] == 3
    path.write_bytes(path.read_bytes()[:-200])
    assert resume.load_checkpoint(path, "cpu") is None
    assert "cannot be read" in capsys.readouterr().err


def test_a_digest_tells_contents_apart():
    values = [np.arange(6), np.arange(6).reshape(2, 3), np.arange(6.0), torch.arange(6), b"0", "0", 0, None, {"a": 0}]
    assert len({files.fingerprint(value) for value in values}) == len(values) - 1  # a tensor is taken as float
    assert files.fingerprint(1, 2) == files.fingerprint(1, 2) != files.fingerprint(2, 1)


def test_no_room_is_told_from_other_errors(tmp_path):
    for number, name in ((errno.ENOSPC, "No space left"), (errno.EACCES, "Permission"), (errno.EROFS, "Read-only")):
        said = errors.cannot_write_message(OSError(number, os.strerror(number), "/a/b.json"))
        assert name in said
        assert "'/a/b.json'. What was done before is kept" in said
    assert f"left on device in {ROOT}." in errors.cannot_write_message("[Errno 28] No space left on device")
    assert errors.cannot_write_message(FileNotFoundError(errno.ENOENT, "No such file", "a")) is None
    with pytest.raises(FileNotFoundError), errors.exit_on_user_error("it"):
        (tmp_path / "none").read_text()
    with (
        pytest.raises(SystemExit, match=r"\nit: .*'/a'. What was done before is kept"),
        errors.exit_on_user_error("it"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "/a")


# Images


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """Four photographs with a box each, a tiny DeconvNet, and folders of their own."""
    for module in (aggregate, store):
        monkeypatch.setattr(module, "VOC", tmp_path / "voc", raising=False)
    for name in ("SCORES", "PREDICTIONS"):
        monkeypatch.setattr(store, name, tmp_path / name.lower())
    monkeypatch.setattr(score_split, "GROUP_SIZE", 2)
    names, rng = ["a", "b", "c", "d"], np.random.default_rng(0)
    (tmp_path / "voc" / voc.IMAGES).mkdir(parents=True)
    for name in names:
        picture = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        picture.save(voc.image_path(tmp_path / "voc", name))
    torch.manual_seed(0)
    net = DeconvNet(blocks=[(4, 1)] * 5, fc=8, size=32).eval()
    settings = params.validate(params.compose("smoke"), "smoke").inference
    return net, names, {name: np.array([[2, 2, 30, 22, 1.0]], np.float32) for name in names}, settings


def test_scored_images_are_kept_and_of_these_weights(stage, scene, monkeypatch, capsys):
    net, names, proposals, settings = scene
    seen = []
    plain = aggregate.score_crops

    def killed_after_two(net, images, *arguments):
        seen.extend(images)
        if len(seen) == 4 and not store.prediction_path("deconvnet", "d").exists():
            raise KeyboardInterrupt
        return plain(net, images, *arguments)

    monkeypatch.setattr(aggregate, "score_crops", killed_after_two)
    with pytest.raises(KeyboardInterrupt):
        score_split.score_split("deconvnet", net, names, proposals, settings)
    stage()
    score_split.score_split("deconvnet", net, names, proposals, settings)
    assert len(seen) == 4 + 2  # a and b are not scored again
    kept = {name: store.read_scores("deconvnet", name) for name in names}
    assert all(kept[name].shape == (21, 24, 32) for name in names)
    stage()
    with torch.no_grad():
        net.score.bias += 1
    score_split.score_split("deconvnet", net, names, proposals, settings)
    assert len(seen) == 6 + 4
    assert "made with other weights" in capsys.readouterr().err


def test_the_crf_goes_on_at_the_image_where_it_was(stage, scene, tmp_path, monkeypatch):
    _, names, _, _ = scene
    monkeypatch.setenv("DECONVNET_CORES", "1")  # in this process, where it can be interrupted
    monkeypatch.setattr(crf, "VOC", tmp_path / "voc")
    monkeypatch.setattr(crf, "PREDICTIONS", tmp_path / "predictions")
    settings, rng = params.validate(params.compose("icons"), "icons").crf, np.random.default_rng(0)
    for name in names:
        store.save_scores("deconvnet", name, rng.normal(size=(21, 24, 32)))
        voc.save_mask(voc.labels_path(tmp_path / "voc", name), rng.integers(0, 21, (24, 32)))
    kernel, seen, plain = settings.candidates[0], [], crf.mean_field

    def killed_at(call):
        def mean_field(*arguments):
            seen.append(1)
            if len(seen) == call:
                raise KeyboardInterrupt
            return plain(*arguments)

        seen.clear()
        monkeypatch.setattr(crf, "mean_field", mean_field)

    def work():
        stage()
        means = crf.compare_kernels(["deconvnet"], names, settings, "mean")
        crf.predict_all({"deconvnet": kernel}, names, settings, "mean")
        return means, [store.read_prediction("deconvnet_crf", name).tolist() for name in names]

    killed_at(None)
    peaceful = work()
    assert len(seen) == len(names) * (len(settings.candidates) + 1)
    shutil.rmtree(resume.CHECKPOINTS)
    killed_at(7)
    with pytest.raises(KeyboardInterrupt):
        work()
    killed_at(9)
    with pytest.raises(KeyboardInterrupt):
        work()
    killed_at(None)
    assert work() == peaceful
    assert len(seen) == 16 - 6 - 8


def killed_at(call, module, name, monkeypatch):
    """Calls of the function are counted from here on, in the list that is returned, and one of them never ends."""
    seen, plain = [], getattr(module, name)

    def counted(*arguments):
        seen.append(1)
        if len(seen) == call:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(module, name, counted)
    return seen


def test_contours_go_on_at_the_image_where_they_were(stage, scene, tmp_path, monkeypatch):
    _, names, _, _ = scene
    torch.manual_seed(0)
    net = boundaries.BoundaryNet([4, 6]).eval()
    monkeypatch.setattr(parallel, "IMAGES_AT_ONCE", 1)  # so that the third call is of c

    def work(folder):
        stage()
        monkeypatch.setattr(store, "BOUNDARIES", tmp_path / folder)
        boundaries.find_boundaries(net, tmp_path / "voc", names, [1.0, 0.5])
        return [store.boundaries_path(name).read_bytes() for name in names]

    peaceful = work("peaceful")
    shutil.rmtree(resume.CHECKPOINTS)
    seen = killed_at(3, boundaries, "probability", monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        work("killed")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").iterdir()}
    assert {*times} - {"d.png"} == {"a.png", "b.png"}  # d may have come to its end before the end of c was heard of
    begun = len(seen)
    assert work("killed") == peaceful
    assert len(seen) == begun + len(names) - len(times)
    assert {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in times} == times


def test_proposals_go_on_at_the_image_where_they_were(stage, scene, tmp_path, monkeypatch, capsys):
    _, names, _, _ = scene
    monkeypatch.setenv("DECONVNET_CORES", "1")  # in this process, where it can be interrupted
    settings = params.validate(params.compose("smoke"), "smoke").proposals

    def work(settings=settings):
        stage()
        return edge_boxes.propose(tmp_path / "voc", names, settings, "gradient")

    peaceful = work()
    assert sum(map(len, peaceful.values())) > 0
    shutil.rmtree(resume.CHECKPOINTS)
    seen = killed_at(3, edges, "edge_boxes", monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        work()
    found = work()
    assert len(seen) == 3 + 2
    assert [*found] == names
    assert all((found[name] == peaceful[name]).all() for name in names)
    work(settings.model_copy(update={"min_area": settings.min_area + 1}))
    assert len(seen) == 5 + 4
    assert "Edge Boxes: what an interrupted run left was made with other settings" in capsys.readouterr().err


# The machine's limits, through the whole stack

FULL_DISK = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # no file grows beyond, as if the disk were full
sys.argv = ["run", "train", sys.argv[1], "-p", "stage", "1"]
runpy.run_module("deconvnet.pipeline.run_notebook", run_name="__main__")
"""


def test_a_full_disk_is_said_in_a_sentence(smoke, tmp_path):
    models = {path: path.read_bytes() for path in (smoke / "models").iterdir()}
    done = call(smoke, "python", "-c", FULL_DISK, str(tmp_path / "train.ipynb"), DVC_STAGE="full disk")
    assert done.returncode == 1
    assert "make room there, or make it writable" in done.stderr, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in (smoke / "models").iterdir()} == models
    shutil.rmtree(smoke / "checkpoints" / "full_disk", ignore_errors=True)


UNWRITABLE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 1)  # PR_CAPBSET_DROP of CAP_DAC_OVERRIDE: permissions hold for root too
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
"""
WORK = """
from deconvnet import files, paths
files.write_whole(paths.BOUNDARIES / "a.png", b"one image")
files.write_whole(paths.MODELS / "net.safetensors", b"new weights")
"""
KEPT = "What was done before is kept: make room there, or make it writable, and run the same command again"
RUN = ("deconvnet.pipeline.run_notebook", "work", "reports/notebooks/work.ipynb")


@contextlib.contextmanager
def unwritable(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o555)
    yield
    folder.chmod(0o755)


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


@pytest.mark.parametrize("place", ["checkpoints", "reports/notebooks", "models", "reports"])
def test_an_unwritable_folder_is_said_in_a_sentence(tmp_path, place):
    """That of a stage's lock, of its notebook's copy, of what the notebook makes, and of the seconds it took."""
    for folder in ("src/deconvnet", "notebooks", "reports/notebooks", "models"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    weights, image = tmp_path / "models" / "net.safetensors", tmp_path / "data" / "boundaries" / "a.png"
    weights.write_bytes(b"old weights")
    nbformat.write(new_notebook(cells=[new_code_cell(WORK)]), tmp_path / "notebooks" / "work.ipynb")

    def work():
        return call(tmp_path, "python", "-c", UNWRITABLE, *RUN, DVC_STAGE="work", PYTHONPATH=str(ROOT / "src"))

    with unwritable(tmp_path / place):
        done = work()
    assert done.returncode == 1, done.stderr[-2000:]
    assert re.search(rf"Permission denied: '(/.*/)?{place}/.*{KEPT}", done.stderr), done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert image.exists() == (place in ("models", "reports"))
    assert weights.read_bytes() == (b"new weights" if place == "reports" else b"old weights")
    if place == "models":  # and when it can be written, the same command ends
        assert work().returncode == 0
        assert (image.read_bytes(), weights.read_bytes()) == (b"one image", b"new weights")


def test_the_pipeline_says_that_it_cannot_write(clone, tmp_path):
    project = shutil.copytree(clone, tmp_path / "project", ignore=shutil.ignore_patterns("runs", ".dvc"))
    before = contents(project)
    for place, profile in ((project / "runs", "smoke"), (project, "icons")):
        with unwritable(place):
            done = call(project, "python", "-c", UNWRITABLE, "deconvnet.pipeline.repro", "--profile", profile)
        assert done.returncode == 1
        assert re.search(rf"Permission denied: '{place}/.*{KEPT}", done.stderr), done.stderr[-2000:]
        assert "Traceback" not in done.stderr
    assert contents(project) == before

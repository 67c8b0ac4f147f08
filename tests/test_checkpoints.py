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

from deconvnet import (
    DeconvNet,
    boundaries,
    boxes,
    checkpoints,
    crf,
    errors,
    figures,
    files,
    inference,
    maps,
    parallel,
    params,
    proposals,
    training,
    voc,
)
from deconvnet.paths import ROOT

SCRIPT = Path(__file__).with_name("kill_training.py")


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage "tiny" that runs in this process, with a folder of its own."""
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setenv("DVC_STAGE", "tiny")
    restart()
    yield restart
    restart()


def restart() -> None:
    """What a new process starts with: no lock, and no claim yet."""
    checkpoints._claims = iter(range(1, 100))
    for lock in checkpoints._locks.values():
        lock.close()
    checkpoints._locks.clear()


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
    assert told["positions"] >= 8  # updates from which it went on
    assert told["same"]


# Claims


def test_what_was_left_is_found_again(stage):
    place = checkpoints.claim("Work", lambda: {"data": "a"})
    (place / "kept").write_text("work")
    stage()
    assert (checkpoints.claim("Work", lambda: {"data": "a"}) / "kept").read_text() == "work"
    assert not (checkpoints.claim("More work", lambda: {"data": "a"}) / "kept").exists()  # another piece, another place


def test_stale_work_is_refused_with_its_reason(stage, tmp_path, capsys):
    output = tmp_path / "output"
    place = checkpoints.claim("Training", lambda: {"data": "a", "settings": "1"}, [output])
    for folder in (place, output):
        (folder / "kept").write_text("work")
    assert capsys.readouterr().err == ""
    stage()
    place = checkpoints.claim("Training", lambda: {"data": "b", "settings": "1"}, [output])
    assert "Training: what an interrupted run left was made with other data. It starts anew." in capsys.readouterr().err
    assert not (place / "kept").exists()
    assert not (output / "kept").exists()


def test_other_code_makes_work_stale(stage, monkeypatch, capsys):
    place = checkpoints.claim("Training", lambda: {})
    (place / "kept").write_text("work")
    stage()
    monkeypatch.setattr(checkpoints, "code", lambda: "another")
    assert not (checkpoints.claim("Training", lambda: {}) / "kept").exists()
    assert "made with other code" in capsys.readouterr().err


def test_the_code_is_that_of_the_modules_that_matter(monkeypatch, tmp_path):
    before = checkpoints.code()
    other = tmp_path / "other.py"
    other.write_text("# another")
    for module, matters in ((figures, False), (boxes, True)):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__file__", str(other))
            assert (checkpoints.code() != before) == matters, module


def test_outside_of_a_stage_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "old").touch()
    assert checkpoints.claim("Work", dict, [tmp_path / "output"]) is None
    assert list((tmp_path / "output").iterdir()) == []


@pytest.mark.parametrize("part", ["runner", "kernel"])
def test_a_successor_waits_for_the_orphan(stage, part, capsys):
    folder = checkpoints.CHECKPOINTS
    orphan = os.fork()
    if orphan == 0:
        checkpoints.hold(part)
        (folder / "held").touch()
        time.sleep(1)
        (folder / "last word").touch()
        os._exit(0)
    while not (folder / "held").exists():
        time.sleep(0.01)
    checkpoints.hold(part)
    assert (folder / "last word").exists()
    assert "Another process still works on tiny" in capsys.readouterr().err
    os.waitpid(orphan, 0)


def test_what_an_orphan_holds_no_claim_and_no_curve_touches(stage, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(checkpoints, "hold", asked.append)
    monkeypatch.setattr(training, "Live", lambda *a, **k: asked.append("live") or contextlib.nullcontext())
    with training.live_curve("tiny"):
        checkpoints.claim("Work", dict)
    assert asked == ["kernel", "live", "kernel"]


def test_an_orphan_of_dvc_does_not_begin(tmp_path):
    """Its parent ends while Python starts; whoever adopts it is of another session."""
    said = tmp_path / "said"
    command = f"{sys.executable} -m deconvnet.run data {tmp_path}/out.ipynb 2> {said} &"
    subprocess.run(["setsid", "sh", "-c", command], env=os.environ | {"DVC_STAGE": "tiny"}, check=True)
    deadline = time.monotonic() + 60
    while not (said.exists() and said.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert said.read_text() == "DVC has ended before its stage began.\n"


# Files


def test_a_write_that_fails_leaves_the_old_content(tmp_path):
    path = tmp_path / "state.pt"
    files.write_whole(path, b"old")
    if os.fork() == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as if the disk were full after so many bytes
        try:
            files.write_whole(path, bytes(2000))
        except OSError as error:
            os._exit(0 if error.filename == str(path) else 2)
        os._exit(1)
    assert os.wait()[1] == 0
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_that_cannot_be_read_is_no_checkpoint(tmp_path, capsys):
    path = tmp_path / "state.pt"
    assert checkpoints.load(path, "cpu") is None
    checkpoints.save(path, {"step": 3, "net": {"weight": torch.arange(4.0)}})
    assert checkpoints.load(path, "cpu")["step"] == 3
    path.write_bytes(path.read_bytes()[:-200])
    assert checkpoints.load(path, "cpu") is None
    assert "cannot be read" in capsys.readouterr().err


def test_a_digest_tells_contents_apart():
    values = [np.arange(6), np.arange(6).reshape(2, 3), np.arange(6.0), torch.arange(6), b"0", "0", 0, None, {"a": 0}]
    assert len({files.digest(value) for value in values}) == len(values) - 1  # a tensor is taken as float
    assert files.digest(1, 2) == files.digest(1, 2) != files.digest(2, 1)


def test_no_room_is_told_from_other_errors(tmp_path):
    for number, name in ((errno.ENOSPC, "No space left"), (errno.EACCES, "Permission"), (errno.EROFS, "Read-only")):
        said = errors.no_room(OSError(number, os.strerror(number), "/a/b.json"))
        assert name in said
        assert "'/a/b.json'. What was done before is kept" in said
    assert f"left on device in {ROOT}." in errors.no_room("[Errno 28] No space left on device")
    assert errors.no_room(FileNotFoundError(errno.ENOENT, "No such file", "a")) is None
    with pytest.raises(FileNotFoundError), errors.plainly("it"):
        (tmp_path / "none").read_text()
    with pytest.raises(SystemExit, match=r"\nit: .*'/a'. What was done before is kept"), errors.plainly("it"):
        raise PermissionError(errno.EACCES, "Permission denied", "/a")


# Images


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """Four photographs with a box each, a tiny DeconvNet, and folders of their own."""
    for module in (inference, maps):
        monkeypatch.setattr(module, "VOC", tmp_path / "voc", raising=False)
    for name in ("SCORES", "PREDICTIONS"):
        monkeypatch.setattr(maps, name, tmp_path / name.lower())
    monkeypatch.setattr(inference, "GROUP", 2)
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
    plain = inference.scores_of

    def killed_after_two(net, images, *arguments):
        seen.extend(images)
        if len(seen) == 4 and not maps.prediction_path("deconvnet", "d").exists():
            raise KeyboardInterrupt
        return plain(net, images, *arguments)

    monkeypatch.setattr(inference, "scores_of", killed_after_two)
    with pytest.raises(KeyboardInterrupt):
        inference.score_all("deconvnet", net, names, proposals, settings)
    stage()
    inference.score_all("deconvnet", net, names, proposals, settings)
    assert len(seen) == 4 + 2  # a and b are not scored again
    kept = {name: maps.read_scores("deconvnet", name) for name in names}
    assert all(kept[name].shape == (21, 24, 32) for name in names)
    stage()
    with torch.no_grad():
        net.score.bias += 1
    inference.score_all("deconvnet", net, names, proposals, settings)
    assert len(seen) == 6 + 4
    assert "made with other weights" in capsys.readouterr().err


def test_the_crf_goes_on_at_the_image_where_it_was(stage, scene, tmp_path, monkeypatch):
    _, names, _, _ = scene
    monkeypatch.setenv("DECONVNET_CORES", "1")  # in this process, where it can be interrupted
    monkeypatch.setattr(crf, "VOC", tmp_path / "voc")
    monkeypatch.setattr(crf, "PREDICTIONS", tmp_path / "predictions")
    settings, rng = params.validate(params.compose("icons"), "icons").crf, np.random.default_rng(0)
    for name in names:
        maps.save_scores("deconvnet", name, rng.normal(size=(21, 24, 32)))
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
        means = crf.compare(["deconvnet"], names, settings, "mean")
        crf.predict_all({"deconvnet": kernel}, names, settings, "mean")
        return means, [maps.read_prediction("deconvnet_crf", name).tolist() for name in names]

    killed_at(None)
    peaceful = work()
    assert len(seen) == len(names) * (len(settings.candidates) + 1)
    shutil.rmtree(checkpoints.CHECKPOINTS)
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
    monkeypatch.setattr(parallel, "LANES", 1)  # so that the third call is of c

    def work(folder):
        stage()
        monkeypatch.setattr(maps, "BOUNDARIES", tmp_path / folder)
        boundaries.find_boundaries(net, tmp_path / "voc", names, [1.0, 0.5])
        return [maps.boundaries_path(name).read_bytes() for name in names]

    peaceful = work("peaceful")
    shutil.rmtree(checkpoints.CHECKPOINTS)
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
        return proposals.propose(tmp_path / "voc", names, settings, "gradient")

    peaceful = work()
    assert sum(map(len, peaceful.values())) > 0
    shutil.rmtree(checkpoints.CHECKPOINTS)
    seen = killed_at(3, proposals, "edge_boxes", monkeypatch)
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
runpy.run_module("deconvnet.run", run_name="__main__")
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
RUN = ("deconvnet.run", "work", "reports/notebooks/work.ipynb")


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
            done = call(project, "python", "-c", UNWRITABLE, "deconvnet.pipeline", "--profile", profile)
        assert done.returncode == 1
        assert re.search(rf"Permission denied: '{place}/.*{KEPT}", done.stderr), done.stderr[-2000:]
        assert "Traceback" not in done.stderr
    assert contents(project) == before

"""`python -m deconvnet.predict`: its results for each picture, and a bad file costs only itself."""

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import call
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_validate import random_files

from deconvnet.config import machine, params
from deconvnet.config.errors import UserError
from deconvnet.data import classes, photograph, voc
from deconvnet.images import store
from deconvnet.predict import Predictor, __main__, pictures, predictor, results, trained


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the program on photographs in tmp_path; the networks find a chair in the lower half of each."""

    settings = params.validate(params.compose("smoke"), "smoke")

    class Chair(Predictor):
        def __init__(self, method, **_):
            self.method, self.kernel, self.settings = "fcn8s", None, settings
            self.trained, self.classes = SimpleNamespace(settings=settings), classes.VOC

        def scores(self, image):
            assert max(image.shape) <= photograph.MAX_SIDE_PX
            scores = np.zeros((21, *image.shape[:2]), np.float32)
            scores[classes.VOC_NAMES.index("chair"), len(image) // 2 :] = 1
            return {"fcn8s": scores}

    def call(*arguments) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
        try:
            __main__.main()
        except SystemExit as ended:
            return ended.code

    monkeypatch.setattr(predictor, "Predictor", Chair)
    monkeypatch.chdir(tmp_path)
    return call


def photo(name: str, size=(40, 30)) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)).save(path)
    return path


def test_two_results_beside_each_photograph_or_in_a_folder(run, capsys):
    assert run(photo("a.jpg"), photo("b/a.jpg")) is None
    assert sorted(map(str, Path().rglob("*.png"))) == ["a_mask.png", "a_overlay.png", "b/a_mask.png", "b/a_overlay.png"]
    assert "a.jpg: chair 50% -> a_mask.png, a_overlay.png" in capsys.readouterr().out
    with Image.open("a_mask.png") as mask:
        assert mask.mode == "P"
        assert (np.array(mask) == np.repeat([[0], [9]], 15, axis=0)).all()
    assert run("a.jpg", "--out", "new/folder") is None
    assert Path("new/folder/a_overlay.png").is_file()


@pytest.mark.parametrize("size", [(1600, 1200), (501, 20), (3, 2000)])
def test_a_large_photograph_gets_a_mask_of_its_own_size(run, capsys, size):
    assert run(photo("large.png", size)) is None
    seen = np.zeros(size[::-1], np.uint8)
    height, width = photograph.reduce(seen).shape
    said = f"large.png: {size[0]} x {size[1]} px, segmented at {width} x {height}: chair 5"
    assert said in capsys.readouterr().out
    with Image.open("large_mask.png") as mask, Image.open("large_overlay.png") as over:
        assert mask.size == over.size == size
        labels = np.array(mask)
    assert set(np.unique(labels)) == {0, 9}
    assert (labels[: int(0.45 * size[1])] == 0).all()
    assert (labels[int(0.55 * size[1]) + 1 :] == 9).all()


def test_scores_are_enlarged_class_by_class():
    """As torch enlarges all of them at once."""
    scores = np.random.default_rng(0).normal(size=(21, 5, 7)).astype(np.float32)
    whole = torch.nn.functional.interpolate(torch.from_numpy(scores)[None], (43, 61), mode="bilinear")[0].numpy()
    assert (predictor.label_map(scores, (43, 61)) == whole.argmax(axis=0)).mean() > 0.999
    assert (predictor.label_map(scores, (5, 7)) == scores.argmax(axis=0)).all()


CLASHES = {
    "two folders": (["a/1.jpg", "b/1.jpg"], ["--out", "o"]),
    "two kinds": (["1.jpg", "1.png"], []),
    "a result is given": (["1.jpg", "1_mask.png"], []),
    "a result is given later": (["1_overlay.png", "x.jpg", "1.jpg"], []),
    "two links to one folder": (["a/1.jpg", "link/1.png"], []),
}


@pytest.mark.parametrize(("names", "options"), CLASHES.values(), ids=CLASHES)
def test_results_that_would_replace_something_are_refused_before_work(run, names, options):
    Path("a").mkdir()
    Path("link").symlink_to("a")
    given = [photo(name) for name in names]
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    message = run(*given, *options)
    assert "have one result" in message or "would replace" in message
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_one_photograph_given_twice_is_one(run, capsys):
    assert run(photo("a.jpg"), "./a.jpg", "a.jpg") is None
    assert capsys.readouterr().out.count("a_mask.png") == 1


@random_files
@given(st.lists(st.tuples(*map(st.sampled_from, (["", "a", "b"], ["1", "2", "1_mask"], ["jpg", "png"]))), max_size=6),
       st.sampled_from([None, Path("o")]))  # fmt: skip
def test_each_file_is_written_once_and_none_that_is_given(parts, out):
    photographs = [Path(folder, f"{name}.{suffix}") for folder, name, suffix in parts]
    targets = {path: {(out or path.parent) / f"{path.stem}_{end}.png" for end in ("mask", "overlay")}
               for path in photographs}  # fmt: skip
    written = [target for targets_of_one in targets.values() for target in targets_of_one]
    clash = len(set(written)) < len(written) or {*written} & {*photographs}
    try:
        found = pictures.result_paths({path: out or path.parent for path in photographs})
    except UserError:
        assert clash
    else:
        assert not clash
        assert {path: set(pair) for path, pair in found.items()} == targets


def test_a_bad_file_costs_only_itself(run, capsys):
    Path("text.jpg").write_text("no picture")
    Path("link.jpg").symlink_to("nowhere")
    Image.fromarray(np.zeros((4, 4), np.float32)).save("float.tif")
    long = photo(f"{'x' * 240}.png")  # there is no room for the names of its results
    good = [photo("a.jpg"), photo("z é\n.png"), photo("one.png", (1, 1))]
    status = run("missing.jpg", "text.jpg", good[0], "link.jpg", "float.tif", long, *good[1:])
    assert status == "5 of 8 pictures could not be segmented."
    assert all(path.with_name(f"{path.stem}_mask.png").is_file() for path in good)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    first, *errors = err.splitlines()
    assert first == "These networks were trained on icon scenes, not on photographs: expect little of them there."
    for name, line in zip(["missing", "text", "link", "float", "xxx"], errors, strict=True):
        assert line.startswith(name)


def test_a_folder_s_pictures_keep_their_structure(run, capsys):
    """Endings in any case, subfolders, a bad file in the middle; no hidden file and no text. A second run finds the
    same pictures, and not what the first has written beside them or into a folder among them.
    """
    given = [photo(f"in/{name}") for name in ("a.JPG", "b/c.Png", "b/d/e.tif", "z.webp")]
    Path("in/b/broken.jpeg").write_text("no picture")
    Path("in/b/notes.txt").write_text("no picture")
    photo("in/.hidden.jpg")
    photo("in/.thumbnails/a.jpg")
    expected = {path.with_name(f"{path.stem}_{end}") for path in given for end in ("mask.png", "overlay.png")}
    for out, found in (("out", Path("out")), ("in/out", Path("in/out")), (None, Path("in"))):
        for _ in range(2):
            assert run("in", *(("--out", out) if out else ())) == "1 of 5 pictures could not be segmented."
            written = {path for path in found.rglob("*_*.png") if out or "out" not in path.parts}
            assert written == {found / path.relative_to("in") for path in expected}
        if out == "in/out":
            shutil.rmtree(out)
    assert "in/b/broken.jpeg is not a complete picture" in capsys.readouterr().err


def test_a_folder_without_a_picture_is_refused(run):
    Path("empty").mkdir()
    assert "empty holds no picture that Pillow opens" in run(photo("a.jpg"), "empty")
    assert not Path("a_mask.png").exists()


@pytest.mark.parametrize(("size", "stored"), [((40, 30), (30, 40)), ((1000, 400), (200, 500))])
def test_probabilities_are_those_of_the_mask(run, capsys, size, stored):
    """Of a large picture at the size at which it was segmented, which the line says."""
    assert run(photo("a.png", size), "--probabilities") is None
    with np.load("a_probabilities.npz") as found:
        probabilities, names = found["probabilities"], found["classes"]
    assert names.tolist() == list(classes.VOC_NAMES)
    assert probabilities.dtype == np.float16
    assert probabilities.shape == (21, *stored)
    assert probabilities[9, -1, 0] == pytest.approx(np.e / (np.e + 20), abs=1e-3)  # the softmax of a 1 and twenty 0
    assert np.abs(probabilities.sum(axis=0, dtype=np.float32) - 1).max() < 2e-3
    with Image.open("a_mask.png") as mask:
        assert mask.size == size
        labels = np.array(mask.resize(stored[::-1], Image.Resampling.NEAREST))
    assert (labels == probabilities.argmax(axis=0)).mean() > 0.99
    assert ("500 x 200, the size of its probabilities" in capsys.readouterr().out) == (size[0] > 500)


def test_rounding_to_float16_keeps_the_label():
    """Where two probabilities round to one number, that of the label gets the next."""
    probabilities = np.array([[0.3, 0.40001], [0.30001, 0.4], [0.39999, 0.19999]], np.float32)[:, None]
    half = results.in_half(probabilities)
    assert half.dtype == np.float16
    assert half.argmax(axis=0).tolist() == [[2, 0]]
    tied = results.in_half(np.float32([[[0.33333]], [[0.33334]], [[0.33333]]]))
    assert tied.argmax(axis=0).tolist() == [[1]]
    assert np.abs(tied.astype(np.float32) - 1 / 3).max() < 6e-4


DEVICES = {
    "gpu": "must be cpu, cuda, cuda:1", "cuda:": "must be cpu, cuda", "cpu:1": "must be cpu, cuda", "mps:x": "must be",
    "cuda:2": "There is no cuda:2: torch sees 2 GPU", "mps": "is mps, but torch sees no such GPU",
}  # fmt: skip


@pytest.mark.parametrize(("name", "said"), DEVICES.items())
def test_a_device_that_is_not_there_is_named(run, monkeypatch, on_the_cpu, name, said):
    for kind, there in (("cuda", True), ("mps", False)):
        monkeypatch.setattr(getattr(torch, kind), "is_available", lambda there=there: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert said in run(photo("a.png"), "--device", name)
    assert not Path("a_mask.png").exists()


def test_a_gpu_by_its_number_is_the_one_of_this_process(monkeypatch, on_the_cpu):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    machine.use_device("cuda:1")
    assert (chosen, os.environ["DECONVNET_DEVICE"]) == ([1], "cuda")


def test_a_folder_of_results_that_cannot_be(run):
    Path("file").touch()
    assert "--out file cannot be made a folder" in run(photo("a.jpg"), "--out", "file")


def test_scores_of_val_are_those_of_the_run(smoke, monkeypatch, on_the_cpu):
    """Boundaries, Edge Boxes and networks on the fly, against what the stages left on disk in steps of 1/32."""
    monkeypatch.setattr(trained, "find", lambda *_: trained.Run(smoke))
    predict, root = Predictor(), smoke / "data" / "voc"
    for name in voc.read_list(root, "val"):
        for network, scores in predict.scores(voc.read_image(root, name)).items():
            stored = store.read_scores(str(smoke / "data" / "scores" / network), name)
            assert stored.std() > 0.05
            assert np.abs(scores - stored).max() < 1 / 32


def test_scenes_of_a_run_are_no_photographs(smoke, tmp_path):
    scene = next((smoke / "data" / "voc" / "JPEGImages").glob("val_*.jpg"))
    (tmp_path / "copy.jpg").write_bytes(scene.read_bytes())
    for path, said in ((scene, ""), (tmp_path / "copy.jpg", "trained on icon scenes, not on photographs")):
        given = ("--method", "fcn8s", "--out", str(tmp_path / "out"), str(path))
        done = call(smoke, "python", "-m", "deconvnet.predict", *given)
        assert done.returncode == 0, done.stderr
        assert (said in done.stderr) if said else (done.stderr == "")


def test_with_the_networks_of_a_run(smoke, tmp_path):
    """A photograph of twelve million pixels, which once took half an hour, and one of a single pixel."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    for name, size in {"large": (4000, 3000), "one": (1, 1), "strip": (900, 2)}.items():
        noise.resize(size).save(tmp_path / f"{name}.jpg")
    done = call(smoke, "python", "-m", "deconvnet.predict", *map(str, sorted(tmp_path.glob("*.jpg"))))
    assert done.returncode == 0, done.stderr
    assert "4000 x 3000 px, segmented at 500 x 375" in done.stdout
    for path in tmp_path.glob("*.jpg"):
        with Image.open(path) as image, Image.open(path.with_name(f"{path.stem}_mask.png")) as mask:
            assert image.size == mask.size

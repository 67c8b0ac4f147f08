"""`python -m deconvnet.predict`: one result for each photograph, and a bad file costs only itself."""

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import call
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_validate import random_files

from deconvnet import predict
from deconvnet.config.errors import UserError
from deconvnet.data import classes, photograph


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the program on photographs in tmp_path; the networks find a chair in the lower half of each."""

    class Chair(predict.Predictor):
        def __init__(self, method):
            self.method = "fcn8s"

        def scores(self, image):
            assert max(image.shape) <= photograph.MAX_SIDE_PX
            scores = np.zeros((21, *image.shape[:2]), np.float32)
            scores[classes.VOC_NAMES.index("chair"), len(image) // 2 :] = 1
            return scores

    def call(*arguments) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
        try:
            predict.main()
        except SystemExit as ended:
            return ended.code

    monkeypatch.setattr(predict, "Predictor", Chair)
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
    import torch

    scores = np.random.default_rng(0).normal(size=(21, 5, 7)).astype(np.float32)
    whole = torch.nn.functional.interpolate(torch.from_numpy(scores)[None], (43, 61), mode="bilinear")[0].numpy()
    assert (predict.label_map(scores, (43, 61)) == whole.argmax(axis=0)).mean() > 0.999
    assert (predict.label_map(scores, (5, 7)) == scores.argmax(axis=0)).all()


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
        results = predict.result_paths(photographs, out)
    except UserError:
        assert clash
    else:
        assert not clash
        assert {path: set(pair) for path, pair in results.items()} == targets


def test_a_bad_file_costs_only_itself(run, capsys):
    Path("text.jpg").write_text("no picture")
    Path("folder.jpg").mkdir()
    Image.fromarray(np.zeros((4, 4), np.float32)).save("float.tif")
    long = photo(f"{'x' * 240}.png")  # there is no room for the names of its results
    good = [photo("a.jpg"), photo("z é\n.png"), photo("one.png", (1, 1))]
    status = run("missing.jpg", "text.jpg", good[0], "folder.jpg", "float.tif", long, *good[1:])
    assert status == "5 of 8 photographs could not be segmented."
    assert all(path.with_name(f"{path.stem}_mask.png").is_file() for path in good)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert len(err.splitlines()) == 5
    for name, line in zip(["missing", "text", "folder", "float", "xxx"], err.splitlines(), strict=True):
        assert line.startswith(name)


def test_a_folder_of_results_that_cannot_be(run):
    Path("file").touch()
    assert "--out file cannot be made a folder" in run(photo("a.jpg"), "--out", "file")


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

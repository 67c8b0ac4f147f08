"""Scenes as CVAT exports them, with three classes and no instances, through every stage up to tables and figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import call
from PIL import Image
from safetensors.torch import load_file

from deconvnet.data import classes, voc
from deconvnet.evaluation.methods import METHODS

COLOURS = {"background": (0, 0, 0), "vehicle": (250, 50, 83), "living": (10, 128, 250)}
NAMES = list(COLOURS)


def export(scenes: Path, folder: Path) -> Path:
    """Odd labels of the scenes are vehicles, even ones living; photographs as PNG."""
    labels = np.arange(256)
    palette = np.array(list(COLOURS.values()))[np.where(labels, 2 - labels % 2, 0)]
    palette[voc.VOID] = classes.MAP[voc.VOID]
    for sub in (voc.IMAGES, voc.LABELS, voc.LISTS):
        (folder / sub).mkdir(parents=True)
    names = sorted(path.stem for path in (scenes / voc.IMAGES).iterdir())
    for name in names:
        Image.fromarray(voc.read_image(scenes, name)).save(folder / voc.IMAGES / f"{name}.png")
        colours = palette[voc.read_labels(scenes, name)].astype(np.uint8)
        Image.fromarray(colours).save(folder / voc.LABELS / f"{name}.png")
    voc.list_path(folder, "default").write_text("\n".join(names))
    lines = [f"{name}:{','.join(map(str, colour))}::\n" for name, colour in COLOURS.items()]
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "".join(lines))
    return folder


@pytest.fixture(scope="module")
def run(clone, smoke, tmp_path_factory):
    """The folder of the run, and what it printed."""
    folder = export(smoke / "data" / "voc", tmp_path_factory.mktemp("export") / "cvat")
    options = ["--profile", "smoke", "--seed", "1", "--data", str(folder), "results", "claims", "figures"]
    done = call(clone, "python", "-m", "deconvnet.pipeline.repro", *options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return clone / "runs" / "smoke-seed1", done.stdout


def test_an_export_of_three_classes_goes_through_every_stage(clone, smoke, run):
    folder, said = run
    reports = folder / "reports"
    assert "38 images with a mask are split by seed 0 (data.seed): 26 train, 4 dev, 8 val" in said
    assert classes.read(folder / "data" / "voc").names == tuple(NAMES)
    for name, key in (("deconvnet", "score"), ("fcn8s", "score_fc7")):
        weights = load_file(folder / "models" / f"{name}.safetensors")
        assert len(weights[next(k for k in weights if k.startswith(key) and k.endswith("bias"))]) == 3
    per_class = json.loads((reports / "per_class.json").read_text())
    assert {frozenset(found) for found in per_class.values()} == {frozenset([*NAMES, "mean"])}
    table = pd.read_csv(reports / "tables" / "table1.csv")
    assert (list(table["method"]), list(table)[3:]) == (list(METHODS.values()), [*NAMES, "mean"])
    assert "| paper" not in said
    notes = {row["id"]: row["note"] for row in json.loads((reports / "claims.json").read_text())}
    assert {name for name, note in notes.items() if "connected components" in note} == {"C5a", "C5b"}
    with Image.open(next((folder / "data" / "predictions" / "fcn8s").glob("*.png"))) as mask:
        assert mask.getpalette()[:9] == [value for colour in COLOURS.values() for value in colour]
        assert max(mask.getdata()) < 3


def test_stage_1_says_what_its_objects_are(run):
    notebook = (run[0] / "reports" / "notebooks" / "train_stage1.ipynb").read_text()
    assert "connected components of each class count as objects" in notebook


def test_its_networks_segment_a_photograph_into_its_classes(clone, run, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save(tmp_path / "a.png")
    done = call(run[0], "python", "-m", "deconvnet.predict", str(tmp_path / "a.png"))
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a_mask.png") as mask:
        assert mask.getpalette()[3:6] == list(COLOURS["vehicle"])
        assert max(mask.getdata()) < 3

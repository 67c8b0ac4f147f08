"""Nothing of val enters training or the selection of settings: with another val, all of it is the same."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import call
from PIL import Image
from test_sources import VOC_LISTS, served, write_voc  # noqa: F401 (a fixture)

from deconvnet.config import params
from deconvnet.config.paths import ROOT
from deconvnet.data import sources, voc

CHAINS = (  # notebook, executed copy and parameters, each in its order; the chains run side by side
    [("backbone",) * 2, ("train", "train_stage1", "-p", "stage", "1"), ("train", "train_stage2", "-p", "stage", "2"),
     ("train_fcn",) * 2],
    [("boundaries",) * 2, ("crf",) * 2],
)  # fmt: skip


def spoil(run: Path) -> None:
    """Another val: noise for photographs, shuffled masks, other boxes and objects, under the same ids."""
    rng, folder = np.random.default_rng(0), run / "data" / "voc"
    objects, boxes = pd.read_csv(run / "data" / "objects.csv"), {}
    for name in voc.read_list(folder, "val"):
        labels = voc.read_labels(folder, name)
        Image.fromarray(rng.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)).save(voc.image_path(folder, name))
        for path, most in ((voc.labels_path, 21), (voc.instances_path, 4)):
            voc.save_mask(path(folder, name), rng.integers(0, most, labels.shape))
        x, y, w, h = rng.integers(1, 40, (4, 30))
        boxes[name] = np.stack([x, y, x + w, y + h, np.linspace(1, 0, 30)], axis=1).astype(np.float32)
    np.savez(run / "data" / "proposals" / "val.npz", **boxes)
    of_val = objects["split"] == "val"
    objects.loc[of_val, "label"] = objects.loc[of_val, "label"] % 20 + 1
    objects.loc[of_val, ["x2", "y2"]] = objects.loc[of_val, ["x1", "y1"]].to_numpy() + 3
    objects.to_csv(run / "data" / "objects.csv", index=False)


def test_another_val_gives_the_same_networks_and_choices(smoke, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(smoke, run, ignore=shutil.ignore_patterns(".dvc", "models", "site"))
    (run / "models").mkdir()
    spoil(run)
    choice = run / "reports" / "crf.json"
    choice.unlink()

    def work(chain):
        for notebook, copy, *parameters in chain:
            output = f"reports/notebooks/{copy}.ipynb"
            done = call(
                run,
                "python",
                "-m",
                "deconvnet.pipeline.run_notebook",
                notebook,
                output,
                *parameters,
                OMP_WAIT_POLICY="PASSIVE",
            )
            assert done.returncode == 0, done.stderr[-2000:]

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, CHAINS))
    made = {path.name: path.read_bytes() for path in (run / "models").iterdir()}
    assert {*made} == {f"{n}.safetensors" for n in ("boundaries", "backbone", "stage1", "deconvnet", "fcn8s")}
    for name, content in made.items():
        assert content == (smoke / "models" / name).read_bytes(), name
    assert json.loads(choice.read_text()) == json.loads((smoke / "reports" / "crf.json").read_text())


PROFILES = [params.validate(params.compose(p.stem), p.stem) for p in sorted((ROOT / "conf").glob("*.yaml"))]
named = {"ids": lambda profile: profile.profile}


def require_disjoint(folder: Path) -> dict[str, set]:
    lists = {split: set(voc.read_list(folder, split)) for split in voc.SPLITS}
    assert all(lists.values())
    assert sum(map(len, lists.values())) == len(set.union(*lists.values()))
    return lists


@pytest.mark.parametrize("settings", [p for p in PROFILES if p.data.source != "voc2012"], **named)
def test_train_dev_and_val_share_no_image(settings, tmp_path):
    """For a profile with icons in fewer of them; for one with photographs, its import of a small folder."""
    few = settings.icons.model_copy(update={"train": 6, "dev": 3, "val": 4})
    made = tmp_path / "made"
    icons = settings.data.model_copy(update={"source": "icons"})
    sources.prepare(settings.model_copy(update={"icons": few, "data": icons}), made)
    require_disjoint(made)
    if settings.data.source == "folder":
        voc.list_path(made, "dev").unlink()
        folder = settings.data.model_copy(update={"root": str(made), "dev": 2})
        sources.prepare(settings.model_copy(update={"data": folder}), tmp_path / "voc")
        require_disjoint(tmp_path / "voc")


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("settings", [p for p in PROFILES if p.data.source == "voc2012"], **named)
def test_train_dev_and_val_of_voc2012_share_no_image(settings, tmp_path):
    """From VOC's and SBD's archives, whose lists overlap: an image of VOC's val is in SBD's train."""
    few = {"root": str(tmp_path / "raw"), "dev": 2}
    if settings.data.test_root:
        few["test_root"] = str(write_voc(tmp_path / "test", {"test": ["t0", "t1"]}))
    sources.prepare(settings.model_copy(update={"data": settings.data.model_copy(update=few)}), tmp_path / "voc")
    lists = require_disjoint(tmp_path / "voc")
    assert lists["val"] == ({"t0", "t1"} if settings.data.test_root else {*VOC_LISTS["val"]})

"""The results of the smoke run of the whole pipeline (conftest.py), and what the pipeline refuses."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import test_caffe
import torch
import yaml
from conftest import call, git
from PIL import Image
from safetensors.torch import load_file

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.data import voc
from deconvnet.evaluation.methods import METHODS
from deconvnet.inference.score_split import MAKE
from deconvnet.networks import caffe
from deconvnet.pipeline import preflight, repro

SOLVER_SEEDS = {"boundaries": 5, "backbone": 1, "stage1": 2, "stage2": 3, "fcn": 4}  # of conf/voc2012.yaml


def seeds_of(settings: dict) -> dict[str, int]:
    return {name: settings[name]["seed"] for name in SOLVER_SEEDS}


@pytest.mark.parametrize("seed", [0, 2, 13])
@pytest.mark.parametrize("profile", ["icons", "quick"])
def test_other_seeds_are_a_run_of_their_own(profile, seed):
    """100 k and those of conf/voc2012.yaml, whatever the profile's own are; and nothing else is changed."""
    settings, expected = preflight.settings_of(profile, None, seed=seed), params.compose(profile)
    assert seeds_of(params.compose("voc2012")) == SOLVER_SEEDS
    assert settings["profile"] == f"{profile}-seed{seed}"
    assert seeds_of(settings) == {name: 100 * seed + own for name, own in SOLVER_SEEDS.items()}
    for name in SOLVER_SEEDS:
        expected[name]["seed"] = settings[name]["seed"]
    assert settings == expected | {"profile": f"{profile}-seed{seed}"}


def test_without_a_seed_the_profile_has_its_own():
    default = preflight.settings_of("icons", None)
    assert default == params.compose("icons")
    assert seeds_of(default) == seeds_of(preflight.settings_of("icons", None, seed=2))  # the default is the third
    assert seeds_of(preflight.settings_of("voc2012", None)) == SOLVER_SEEDS


def test_the_repetitions_are_the_other_seeds_of_the_default():
    listed = yaml.safe_load((ROOT / "seeds" / "dvc.yaml").read_text())["stages"]["train"]["matrix"]["seed"]
    own = preflight.settings_of("icons", None)["stage1"]["seed"] // 100
    assert sorted([own, *listed]) == list(range(1 + len(listed)))  # none twice, and none left out


def experiment_of(run: Path) -> str:
    return json.loads((run / "reports" / "experiment.json").read_text())["id"]


def test_every_stage_ran_and_left_its_outputs(smoke):
    lock = yaml.safe_load((smoke / "dvc.lock").read_text())["stages"]
    assert len(lock) == 20
    for stage in lock.values():
        for out in stage["outs"]:
            assert (smoke / out["path"]).exists(), out["path"]


def test_a_separate_run_leaves_the_project_unchanged(clone, smoke):
    assert git(clone, "status", "--porcelain") == ""


def test_a_second_run_does_nothing(smoke):
    done = call(smoke, "dvc", "repro")
    assert done.returncode == 0
    assert "Running stage" not in done.stdout
    assert "up to date" in done.stdout


def test_a_crf_parameter_concerns_only_what_depends_on_it(smoke):
    params = (smoke / "params.yaml").read_text()
    try:
        (smoke / "params.yaml").write_text(params.replace("iterations: 2\n", "iterations: 3\n"))
        status = json.loads(call(smoke, "dvc", "status", "--json").stdout)
    finally:
        (smoke / "params.yaml").write_text(params)
    assert set(status) == {"crf", "experiment"}
    after = call(smoke, "dvc", "repro", "--dry", "--force", "--downstream", "crf").stdout
    expected = {"crf", "evaluate", "results", "claims", "figures", "report"}
    assert set(re.findall(r"Running stage '(\w+)'", after)) == expected


def test_metrics_are_flat_fractions_of_five_methods(smoke):
    metrics = json.loads((smoke / "reports" / "metrics.json").read_text())
    assert set(metrics) == set(METHODS)
    for values in metrics.values():
        assert set(values) == {"mean_iou", "recall_small", "recall_medium", "recall_large"}
        assert all(0 <= value <= 1 for value in values.values() if value is not None)


def test_proposals_are_compared_by_their_edges(smoke):
    report = json.loads((smoke / "reports" / "proposals.json").read_text())
    assert set(report) == {"learned boundaries", "gradient edges"}
    for counts in report.values():
        assert "50" in counts
        found = [counts[n]["all"] for n in sorted(counts, key=int)]
        assert found == sorted(found)  # more boxes find no fewer objects
        assert 0 < found[-1] <= 1
        assert all(set(row) <= {"all", "small", "medium", "large"} for row in counts.values())


def test_metrics_agree_with_the_label_maps_on_disk(smoke):
    """Mean IoU counted anew from the PNGs, class by class, without the project's metric code."""
    names = (smoke / "data/voc/ImageSets/Segmentation/val.txt").read_text().split()
    for method, values in json.loads((smoke / "reports" / "metrics.json").read_text()).items():
        truth, predicted = (
            np.concatenate([np.array(Image.open(folder / f"{name}.png")).ravel() for name in names])
            for folder in (smoke / "data/voc/SegmentationClass", smoke / "data/predictions" / method)
        )
        truth, predicted = truth[truth != 255], predicted[truth != 255]
        unions = [((truth == c) | (predicted == c)).sum() for c in range(21)]
        hits = [((truth == c) & (predicted == c)).sum() for c in range(21)]
        assert values["mean_iou"] == pytest.approx(
            np.mean([h / u for h, u in zip(hits, unions, strict=True) if u]), abs=1e-5
        )


def test_table1_sets_the_paper_beside_this_run(smoke):
    table = pd.read_csv(smoke / "reports" / "tables" / "table1.csv").set_index("source")
    assert list(table.loc["this run", "method"]) == list(METHODS.values())
    paper = table[table["method"].eq("EDeconvNet+CRF") & table["data"].eq("VOC 2012 test")]
    assert paper["mean"].item() == 72.5
    page = (smoke / "reports" / "tables" / "table1.md").read_text()
    assert "icons val, 8 images" in page
    assert f"experiment {experiment_of(smoke)}" in page
    assert "arXiv:1505.04366" in page
    assert page.count("unverified") == 3  # the note, and two means


def test_predictions_fit_their_images(smoke):
    names = (smoke / "data/voc/ImageSets/Segmentation/val.txt").read_text().split()
    for method in METHODS:
        for name in names:
            with Image.open(smoke / "data" / "predictions" / method / f"{name}.png") as mask:
                assert mask.mode == "P"
                assert mask.size == voc.read_image(smoke / "data" / "voc", name).shape[1::-1]
                assert np.array(mask).max() <= 20


def test_lists_are_disjoint(smoke):
    splits = [set(voc.read_list(smoke / "data" / "voc", split)) for split in voc.SPLITS]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 24 + 6 + 8


def test_executed_notebooks_are_whole_and_free_of_the_machine(smoke):
    executed = sorted((smoke / "reports" / "notebooks").glob("*.ipynb"))
    assert len(executed) == 18
    for path in executed:
        notebook = nbformat.read(path, as_version=4)
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert outputs, path.name
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"], path.name
        assert str(smoke) not in path.read_text(), path.name


def test_curves_and_figures_are_there_for_dvc(smoke):
    for name in ("boundaries", "backbone", "stage1", "stage2", "fcn8s"):
        rows = pd.read_csv(smoke / f"reports/curves/{name}/plots/metrics/loss.tsv", sep="\t")
        assert rows["step"].max() == (12 if name == "backbone" else 6)  # the backbone has two phases
        assert np.isfinite(rows["loss"]).all()
    with Image.open(smoke / "reports" / "figures" / "figure7.png") as figure:
        assert np.array(figure.convert("L")).std() > 10
    shown = call(smoke, "dvc", "metrics", "show", "--json")
    assert "edeconvnet_crf" in shown.stdout
    plots = call(smoke, "dvc", "plots", "show", "-o", "plots")
    assert plots.returncode == 0, plots.stderr
    page = (smoke / "plots" / "index.html").read_text()
    for shown in ("Training loss", "Objects of val, DeconvNet", "overlays.png"):
        assert shown in page, shown


@pytest.mark.parametrize(
    ("notebook", "section", "weights", "model"),
    [("train", "stage1", "deconvnet", "stage1"), ("train_fcn", "fcn", "fcn8s", "fcn8s")],
)
def test_published_weights_are_taken_as_they_are_without_updates(smoke, tmp_path, notebook, section, weights, model):
    folder, settings = tmp_path / "run", yaml.safe_load((smoke / "params.yaml").read_text())
    shutil.copytree(smoke, folder, ignore=shutil.ignore_patterns(".dvc", "scores", "predictions", "notebooks-*"))
    made = MAKE[weights](params.validate(settings, "smoke"))
    layers = test_caffe.random_layers(made, np.random.default_rng(0))
    test_caffe.write(tmp_path / "published.caffemodel", layers, 1)
    settings["weights"][weights] = {"source": "caffe", "path": str(tmp_path / "published.caffemodel")}
    settings[section] |= {"iterations": 0, "bn_batches": 0}
    (folder / "params.yaml").write_text(params.dump(settings))
    done = call(
        folder, "python", "-m", "deconvnet.pipeline.run_notebook", notebook, "reports/notebooks/published.ipynb"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    expected = caffe.convert(made, caffe.read(tmp_path / "published.caffemodel"))
    found = load_file(folder / "models" / f"{model}.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("method", ["deconvnet", "edeconvnet_crf"])
def test_people_can_segment_a_photograph(smoke, tmp_path, method):
    Image.fromarray(np.full((45, 70, 3), 90, np.uint8)).save(tmp_path / "flat.png")  # no edges, so no proposals
    done = call(smoke, "python", "-m", "deconvnet.predict", "--method", method, str(tmp_path / "flat.png"))
    assert done.returncode == 0, done.stderr
    for name in ("flat_mask.png", "flat_overlay.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (70, 45)


def test_predict_names_what_it_cannot_read(smoke, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    for path in (tmp_path / "broken.jpg", tmp_path / "missing.jpg"):
        done = call(smoke, "python", "-m", "deconvnet.predict", "--method", "fcn8s", str(path))
        assert done.returncode != 0
        assert path.name in done.stderr
        assert "Traceback" not in done.stderr


def pipeline_refuses(clone: Path, *arguments: str) -> str:
    """What the pipeline prints when it stops before DVC; asserts that it is an explanation and that nothing changed."""
    before = git(clone, "status", "--porcelain")
    done = call(clone, "python", "-m", "deconvnet.pipeline.repro", *arguments)
    assert done.returncode != 0
    assert "Running stage" not in done.stdout
    assert "Traceback" not in done.stderr
    assert git(clone, "status", "--porcelain") == before
    return done.stderr


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("num_proposals: 50", "num_proposals: 50, num_propsals: 5", "inference.num_propsals"),
        ("num_proposals: 50, ", "", "inference.num_proposals"),
        ("num_proposals: 50", "num_proposals: many", "inference.num_proposals"),
        ("source: icons", "source: photographs", "data.source"),
        ("forest: null", "forest: model.yml", "model.yml"),
        (
            "deconvnet: {source: backbone, path: null}",
            "deconvnet: {source: caffe, path: net.caffemodel}",
            "net.caffemodel",
        ),
        ("deconvnet: {source: backbone, path: null}", "deconvnet: {source: caffe, path: null}", "needs a path"),
    ],
)
def test_wrong_parameters_are_named_before_dvc_starts(clone, old, new, named):
    params = clone / "params.yaml"
    text = params.read_text()
    assert old in text
    try:
        params.write_text(text.replace(old, new, 1))
        assert named in pipeline_refuses(clone)
    finally:
        params.write_text(text)


def test_unlisted_seeds_are_named_before_dvc_starts(clone):
    assert "N=4, but seeds/dvc.yaml lists the seeds [0, 1]" in pipeline_refuses(clone, "--seeds", "4")


@pytest.mark.parametrize("network", ["deconvnet", "fcn8s"])
def test_weights_of_another_network_are_named_before_dvc_starts(tmp_path, network):
    settings, path = params.compose("smoke"), tmp_path / "other.caffemodel"
    settings["weights"][network] = {"source": "caffe", "path": str(path)}
    made = MAKE[network](params.validate(settings, "smoke"))
    layers = test_caffe.random_layers(made, np.random.default_rng(0))
    test_caffe.write(path, layers, 2)
    preflight.check(settings)
    test_caffe.write(path, {name: blobs for name, blobs in layers.items() if name != "fc7"}, 2)
    with pytest.raises(UserError, match=rf"{path}: The caffemodel is of another network: fc7 is missing"):
        preflight.check(settings)


def test_profiles_of_voc2012_share_one_folder_of_downloads(tmp_path, monkeypatch):
    monkeypatch.setattr(repro, "ROOT", tmp_path)
    monkeypatch.setattr(repro, "CODE", ())
    monkeypatch.setattr(repro, "dvc", lambda *arguments: 0)
    for profile in ("voc2012", "voc2012-trainval"):
        folder = repro.prepare_separate(params.compose(profile))
        assert yaml.safe_load((folder / "params.yaml").read_text())["data"]["root"] == str(tmp_path / "data/downloads")
    assert (tmp_path / "data/downloads").is_dir()


def test_a_folder_of_test_photographs_is_looked_at_before_dvc_starts(tmp_path):
    settings = params.compose("voc2012-trainval")
    settings["data"]["test_root"] = str(tmp_path)
    with pytest.raises(UserError, match=r"data\.test_root: .*test\.txt is missing"):
        preflight.check(settings)
    listed = tmp_path / "ImageSets" / "Segmentation" / "test.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("\n")
    with pytest.raises(UserError, match=r"data\.test_root: .*test\.txt is empty"):
        preflight.check(settings)
    for name in ("../../evil", "/evil"):
        listed.write_text(f"2008_000001\n{name}\n")
        with pytest.raises(UserError, match=rf"data\.test_root: .*test\.txt has the id '{name}'"):
            preflight.check(settings)


def test_wrong_data_are_named_before_dvc_starts(clone, smoke, tmp_path):
    assert "add DATA=" in pipeline_refuses(clone, "--profile", "voc")
    assert "PROFILE=voc" in pipeline_refuses(clone, "--data", str(tmp_path))
    assert "nowhere" in pipeline_refuses(clone, "--profile", "voc", "--data", str(tmp_path / "nowhere"))
    assert "JPEGImages" in pipeline_refuses(clone, "--profile", "voc", "--data", str(tmp_path))
    assert "icons" in pipeline_refuses(clone, "--profile", "unheard-of")
    folder = tmp_path / "voc"
    shutil.copytree(smoke / "data" / "voc", folder)
    (folder / "JPEGImages" / "val_00001.jpg").write_bytes((folder / "JPEGImages" / "val_00001.jpg").read_bytes()[:900])
    (folder / "SegmentationClass" / "train_00003.png").unlink()
    said = pipeline_refuses(clone, "--profile", "voc", "--data", str(folder))
    assert "val_00001.jpg" in said
    assert "train_00003.png" in said


def test_a_failed_stage_gives_committed_reports_back(clone):
    """The stage fails inside DVC, after DVC has removed its outputs: tracked results must still be there."""
    notebook = clone / "notebooks" / "data.ipynb"
    text = notebook.read_text()
    try:
        notebook.write_text(text.replace("sources.prepare(settings, paths.VOC)", "raise ValueError(17)"))
        done = call(clone, "python", "-m", "deconvnet.pipeline.repro")
    finally:
        notebook.write_text(text)
    assert done.returncode != 0
    assert "ValueError: 17" in done.stdout + done.stderr
    assert not [line for line in git(clone, "status", "--porcelain").splitlines() if "reports/" in line]

"""`make release` and the weights file: what is packed comes back, and only what was checked is used."""

import hashlib
import shutil
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from conftest import call
from PIL import Image
from safetensors.torch import save_file
from test_download import server  # noqa: F401 (a fixture)

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.data import voc
from deconvnet.evaluation.methods import METHODS
from deconvnet.networks import build
from deconvnet.pipeline import evaluate_weights, release
from deconvnet.predict import Predictor, __main__, trained, weights_file
from deconvnet.proposals.boundaries import BoundaryNet
from deconvnet.utils.files import write_json

KERNEL = {"gaussian_weight": 3, "gaussian_xy": 3, "bilateral_weight": 5, "bilateral_xy": 20, "bilateral_rgb": 3}
MAX_BYTES = 6 * 2**20  # of what git is to keep


def networks(settings) -> dict[str, dict[str, torch.Tensor]]:
    """The settings' networks with random weights, and statistics beyond float16."""
    torch.manual_seed(0)
    made = {
        "deconvnet": build.make_deconvnet(settings),
        "fcn8s": build.make_fcn(settings),
        "boundaries": BoundaryNet(settings.boundaries.widths),
    }
    states = {name: network.state_dict() for name, network in made.items()}
    for name, tensor in states["deconvnet"].items():
        if name.endswith("running_var"):
            tensor[:2] = torch.tensor([1e9, 1e-9])
    return states


@pytest.fixture
def a_run(tmp_path, monkeypatch, on_the_cpu) -> Path:
    """A finished run as `release` reads it, of the smoke profile's networks without training."""
    settings, folder = params.compose("smoke"), tmp_path / "run"
    (folder / "models").mkdir(parents=True)
    (folder / "params.yaml").write_text(params.dump(settings))
    for name, state in networks(params.load(folder / "params.yaml")).items():
        save_file(state, folder / "models" / f"{name}.safetensors")
    write_json(folder / "reports" / "metrics.json", {method: {"mean_iou": 0.25} for method in METHODS})
    write_json(folder / "reports" / "crf.json", {m: {"chosen": KERNEL} for m in ("fcn8s", "deconvnet", "edeconvnet")})
    write_json(folder / "reports" / "provenance.json", {"commit": "abc"})
    return folder


def test_what_is_packed_comes_back(a_run):
    """Kernels rounded to float16, all else bit for bit; a card with settings and numbers; a page with the SHA-256."""
    path, changed = release.release(a_run)
    assert (path, changed) == (a_run / "weights" / "smoke.safetensors", True)
    card, found = weights_file.read(path)
    settings = params.load(a_run / "params.yaml")
    expected = networks(settings)
    assert found.keys() == expected.keys()
    for network, state in expected.items():
        assert found[network].keys() == state.keys()
        for name, tensor in state.items():
            kept = found[network][name]
            if tensor.ndim == 4 and name.endswith("weight") and network != "boundaries":
                assert kept.dtype == torch.float16
                assert torch.allclose(kept.float(), tensor, rtol=2**-11, atol=2**-25)
            else:
                assert kept.dtype == tensor.dtype
                assert torch.equal(kept, tensor)
    assert params.validate(card["settings"], "card") == settings
    assert (card["commit"], card["mean_iou"]["fcn8s"], card["licence"]) == ("abc", 0.25, "MIT")
    assert card["seeds"]["stage2"] == settings.stage2.seed
    page = (path.parent / "README.md").read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in page
    assert "icon scenes" in page
    loaded = trained.WeightsFile(path)
    net = loaded.load(build.make_deconvnet(settings), "deconvnet")
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    assert loaded.kernel("edeconvnet").bilateral_xy == 20


def test_it_is_written_only_if_a_tensor_or_a_number_has_changed(a_run):
    path, _ = release.release(a_run)
    first = path.read_bytes()
    write_json(a_run / "reports" / "provenance.json", {"commit": "def"})
    assert release.release(a_run) == (path, False)
    assert path.read_bytes() == first
    write_json(a_run / "reports" / "metrics.json", {method: {"mean_iou": 0.26} for method in METHODS})
    assert release.release(a_run) == (path, True)
    assert weights_file.read(path)[0]["commit"] == "def"
    state = networks(params.load(a_run / "params.yaml"))["fcn8s"]
    save_file({name: tensor + 1 for name, tensor in state.items()}, a_run / "models" / "fcn8s.safetensors")
    assert release.release(a_run) == (path, True)


def test_a_run_that_is_not_finished_is_refused_with_what_to_do(a_run):
    (a_run / "reports" / "metrics.json").unlink()
    with pytest.raises(
        UserError, match=r"metrics\.json does not exist, the run is not finished: make repro PROFILE=smoke, then"
    ):
        release.release(a_run)
    (a_run / "models" / "fcn8s.safetensors").unlink()
    with pytest.raises(UserError, match=r"no .*fcn8s\.safetensors: make repro PROFILE=smoke, then make release"):
        release.release(a_run)
    assert not (a_run / "weights").exists()


def test_the_default_s_file_is_small_enough_for_git(on_the_cpu):
    content = weights_file.pack(networks(params.load()), {"settings": params.load().model_dump(mode="json")})
    assert len(content) < MAX_BYTES


def test_weights_that_float16_cannot_hold_are_refused():
    with pytest.raises(UserError, match=r"a\.conv\.weight has values that float16 cannot hold"):
        weights_file.pack({"a": {"conv.weight": torch.full((1, 1, 1, 1), 1e5)}}, {})


# Where predict finds weights


def test_a_run_s_own_networks_come_first_then_those_that_come_with_the_project(a_run, monkeypatch):
    path, _ = release.release(a_run)
    monkeypatch.setattr(trained.paths, "ROOT", a_run)
    monkeypatch.setattr(trained, "SHIPPED", path)
    assert isinstance(trained.find(), trained.Run)
    (a_run / "models" / "deconvnet.safetensors").unlink()
    assert trained.find().path == path
    assert Predictor("deconvnet_crf")(np.zeros((20, 30, 3), np.uint8)).shape == (20, 30)
    assert "come with the project" in __main__.notes(Predictor("fcn8s"), [], None)[0]
    monkeypatch.setattr(trained, "SHIPPED", a_run / "none")
    with pytest.raises(UserError, match=r"deconvnet\.safetensors does not exist: .*make repro"):
        Predictor("deconvnet")
    with pytest.raises(UserError, match=r"There is no run .*runs/quick: make repro PROFILE=quick makes it\. .* none"):
        trained.find(profile="quick")
    assert trained.find(profile="smoke").folder == a_run


def test_a_file_s_checksum_is_compared_or_said(a_run):
    path, _ = release.release(a_run)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    said = __main__.notes(Predictor("fcn8s", weights=path), [path], None)
    assert said[0] == f"{path} has the SHA-256 {found}."
    assert "not on photographs" in said[1]
    assert __main__.notes(Predictor("fcn8s", weights=str(path), sha256=found.upper()), [], found) == []
    with pytest.raises(UserError, match=f"its SHA-256 is {found} and should be {'0' * 64}"):
        Predictor("fcn8s", weights=path, sha256="0" * 64)
    with pytest.raises(UserError, match="64 hexadecimal digits, not 'abc'"):
        Predictor("fcn8s", weights=path, sha256="abc")
    with pytest.raises(UserError, match="of a weights file: name the file too"):
        Predictor("fcn8s", sha256=found)


def test_a_downloaded_file_is_used_only_with_its_checksum(a_run, server, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    path, _ = release.release(a_run)
    server.content, found = path.read_bytes(), hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="is used only with its checksum: add --sha256"):
        trained.fetch(server.url, None)
    with pytest.raises(UserError, match=f"its SHA-256 is {found} and should be {'0' * 64}"):
        trained.fetch(server.url, "0" * 64)
    assert trained.fetch(server.url, found).read_bytes() == server.content
    asked = len(server.starts)
    trained.fetch(server.url, found)
    assert len(server.starts) == asked  # it is there


def test_other_files_are_refused_in_a_sentence(a_run, tmp_path):
    (tmp_path / "text.safetensors").write_text("no tensors")
    path, _ = release.release(a_run)
    card, states = weights_file.read(path)
    wrong = {"models": a_run / "models" / "fcn8s.safetensors", "text": tmp_path / "text.safetensors",
             "none": tmp_path / "none.safetensors", "folder": tmp_path}  # fmt: skip
    said = {
        "models": "has no card",
        "text": "cannot be read as a weights file",
        "none": "is no file",
        "folder": "no file",
    }
    for name, file in wrong.items():
        with pytest.raises(UserError, match=said[name]):
            Predictor("fcn8s", weights=file)
    (tmp_path / "other.safetensors").write_bytes(weights_file.pack({"fcn8s": states["boundaries"]}, card))
    with pytest.raises(UserError, match="does not hold the network fcn8s that its card describes"):
        Predictor("fcn8s", weights=tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"There is no method 'unet'\. Known: fcn8s"):
        Predictor("unet", weights=path)


def test_numbers_may_be_a_tenth_of_a_point_apart(a_run, monkeypatch, capsys):
    stated = dict.fromkeys(METHODS, 0.4)
    assert evaluate_weights.differing(dict.fromkeys(METHODS, 0.4009), stated) == []
    assert evaluate_weights.differing(stated | {"deconvnet": 0.3985}, stated) == ["deconvnet"]
    monkeypatch.setattr(evaluate_weights, "mean_ious", lambda path: (stated | {"fcn8s": 0.5}, stated))
    monkeypatch.setattr(sys, "argv", ["evaluate", "a.safetensors"])
    with pytest.raises(SystemExit, match=r"More than 0\.1 points apart: FCN-8s\."):
        evaluate_weights.main()
    assert "FCN-8s" in capsys.readouterr().out


# With the networks of a run


@pytest.fixture(scope="module")
def released(smoke, tmp_path_factory) -> tuple[Path, Path]:
    """The weights file of the smoke run, and a checkout of its code without data and models that has it as its own."""
    done = call(smoke.parents[1], "python", "-m", "deconvnet.pipeline.release", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    path = smoke / "weights" / "smoke.safetensors"
    assert done.stdout.startswith(f"{path}: written, ")
    fresh = tmp_path_factory.mktemp("released") / "fresh"
    ignored = ("data", "models", "reports", "weights", ".dvc", "checkpoints", "dvc.lock")
    shutil.copytree(smoke, fresh, ignore=shutil.ignore_patterns(*ignored))
    # src/deconvnet/data is code
    shutil.copytree(smoke / "src" / "deconvnet" / "data", fresh / "src" / "deconvnet" / "data")
    (fresh / "weights").mkdir()
    shutil.copy2(path, fresh / "weights" / "icons.safetensors")
    return path, fresh


@pytest.mark.parametrize("method", ["fcn8s", "deconvnet"])
def test_float16_changes_hardly_a_label(smoke, released, monkeypatch, on_the_cpu, method):
    """The smoke run's networks call all background, so probabilities are compared too. The boundary detector is not
    rounded: proposals are the same.
    """
    folder = smoke / "data" / "voc"
    images = [voc.read_image(folder, name) for name in voc.read_list(folder, "val")]
    halved = Predictor(method, weights=released[0])
    monkeypatch.setattr(trained, "find", lambda *_: trained.Run(smoke))
    whole = Predictor(method)
    assert np.mean([(halved(image) == whole(image)).mean() for image in images]) >= 0.999
    for image in images:
        if method == "deconvnet":
            assert (halved.boxes(image) == whole.boxes(image)).all()
        found, expected = halved.probabilities(image), whole.probabilities(image)
        assert expected.std(axis=(1, 2)).max() > 1e-3
        assert 0 < np.abs(found - expected).mean() < 3e-4


def test_what_a_fresh_checkout_can_do_with_them(released, tmp_path):
    """Without a run: its networks segment, the tour and explore run on generated scenes, and val can be evaluated."""
    path, fresh = released
    scene = tmp_path / "scene.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(scene)
    done = call(fresh, "python", "-m", "deconvnet.predict", str(scene))
    assert done.returncode == 0, done.stderr
    assert "which come with the project" in done.stderr
    for name in ("tour", "explore"):
        notebook = tmp_path / f"{name}.ipynb"
        done = call(fresh, "python", "-m", "deconvnet.pipeline.run_notebook", name, str(notebook))
        assert done.returncode == 0, done.stderr[-2000:]
        outputs = [o for c in nbformat.read(notebook, as_version=4).cells for o in c.get("outputs", [])]
        assert any("image/png" in output.get("data", {}) for output in outputs)
    done = call(fresh, "python", "-m", "deconvnet.pipeline.evaluate_weights", str(path))
    stated = weights_file.read(path)[0]["mean_iou"]
    for method, title in METHODS.items():
        assert f"{title:15s} " in done.stdout
        found, card = (float(number) for number in done.stdout.split(title + " ")[-1].split()[:2])
        assert card == pytest.approx(100 * stated[method], abs=0.051)
        assert found == pytest.approx(card, abs=0.3), method

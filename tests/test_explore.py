"""The explorer: each control changes its picture and no network scores the image again; without widgets, a line."""

import sys
from collections import Counter
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from conftest import call
from PIL import Image
from torch import nn

from deconvnet import DeconvNet, FCN8s, explore
from deconvnet.config import params
from deconvnet.config.schema import Kernel
from deconvnet.data import photograph
from deconvnet.evaluation import decoder_energy
from deconvnet.report import figures, paper_figures

KERNEL = Kernel(gaussian_weight=1, gaussian_xy=2, bilateral_weight=3, bilateral_xy=4, bilateral_rgb=5)
BOXES = np.array([[0, 0, 20, 20], [4, 4, 32, 24], [12, 0, 30, 18], [0, 6, 18, 24], [0, 0, 32, 24]])
PROPOSALS = np.hstack([BOXES, np.linspace(1, 0.5, 5)[:, None]]).astype(np.float32)


@pytest.fixture
def explorer(monkeypatch):
    """Two images of val and two small networks, without the files of a run; `seen` counts what each network gets."""
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    torch.manual_seed(0)
    networks = {
        "deconvnet": DeconvNet(blocks=((4, 1), (4, 1)), fc=8, size=16, std=58).eval(),
        "fcn": FCN8s(blocks=((2, 1),) * 5, fc=2, size=64).eval(),
    }
    made, seen = object.__new__(explore.Explorer), Counter()
    for name, network in networks.items():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.4)
        network.register_forward_pre_hook(lambda _, x, name=name: seen.update({name: len(x[0])}))
    images = {name: np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8) for i, name in enumerate("ab")}
    monkeypatch.setattr(explore.voc, "read_image", lambda root, name: images[name])
    monkeypatch.setattr(explore.voc, "read_labels", lambda root, name: np.zeros((24, 32), np.uint8))
    made.predictor = SimpleNamespace(**networks, boxes=lambda image: PROPOSALS)
    made.settings, made.kernel = params.validate(params.compose("smoke"), "smoke"), KERNEL
    made.root, made.names, made.max_proposals, made.seen = None, ["a", "b"], 20, seen
    made.layers = decoder_energy.layer_names(networks["deconvnet"])
    return made.open("a")


def test_each_control_changes_its_picture_without_scoring_the_image_again(explorer, tmp_path):
    box = explore.panel(explorer)
    controls = {control.description: control for control in box.children[0].children}
    message, result, layers = box.children[1:]

    def change(name: str, value, picture) -> Counter:
        """What the networks get when a control changes."""
        before = picture.value
        explorer.seen.clear()
        controls[name].value = value
        assert message.value == ""
        assert picture.value != before, name
        return explorer.seen

    for name, value, picture in [
        ("proposals", 1, result), ("proposals", 5, result), ("aggregation", "mean", result),
        ("ensemble", "product", result), ("ensemble", "mean", result), ("CRF, near", 9.0, result),
        ("CRF, colour", 8.0, result), ("layer", explorer.layers[0], layers), ("proposal", 2, layers),
    ]:  # fmt: skip
        crops = {"deconvnet": 1} if name == "proposal" else {}  # one crop: its layers are shown
        assert change(name, value, picture) == crops, name
    assert change("image", "b", result) == {"deconvnet": len(PROPOSALS) + 1, "fcn": 1}
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 700, 3), np.uint8)).save(tmp_path / "mine.png")
    change("image", str(tmp_path / "mine.png"), result)
    assert max(explorer.image.shape) == photograph.MAX_SIDE_PX
    assert explorer.ground_truth is None
    controls["image"].value = "nowhere.jpg"
    assert "'nowhere.jpg' is neither an image of val (a … b) nor a file" in message.value


def test_without_widgets_there_is_a_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert explore.panel(None) is None
    assert "change the numbers in the cells below" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((0, 0), None), ((3, 5), (3, 5)), ((0, 5), (0, 5)), ((None, None), (1, 3)), ((None, 7), (1, 7))],
)
def test_the_weights_of_the_crf(weights, expected):
    """Those that are not given stay; with both at 0 there is no CRF."""
    kernel = explore.kernel_of(KERNEL, *weights)
    assert (kernel and (kernel.gaussian_weight, kernel.bilateral_weight)) == expected
    assert kernel is None or (kernel.gaussian_xy, kernel.bilateral_xy, kernel.bilateral_rgb) == (2, 4, 5)


def test_layers_are_titled_by_their_proposal(explorer):
    axes = explorer.layer("deconv1", proposal=7, channels=2).axes
    assert axes[0].get_title() == "proposal 4"  # there is no eighth
    assert [axis.get_title().split(",")[0] for axis in axes[1:]] == ["deconv1"] * 2


def test_where_an_image_with_ground_truth_errs_is_shown_below(explorer, tmp_path):
    """Of each label map in its own column; a picture of yours has none."""
    found, figure = explorer.segment(), explorer.show()
    titles = ["a", "ground truth", *found]
    assert [axis.get_title() for axis in figure.axes[: len(titles)]] == [figures.title_of(title) for title in titles]
    pictures = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    assert len(pictures) == 2 * len(titles)
    blank, also_blank, *overlays = pictures[len(titles) :]
    assert (blank == 255).all()
    assert (also_blank == 255).all()
    for overlay, labels in zip(overlays, found.values(), strict=True):
        expected = paper_figures.overlay_errors(explorer.image, explorer.ground_truth, labels)
        assert (overlay == expected).all()
    assert len(figure.legends) == 2  # of classes, and of kinds of error
    Image.fromarray(explorer.image).save(tmp_path / "mine.png")
    mine = explorer.open(str(tmp_path / "mine.png")).show()
    assert len(mine.axes) == 1 + len(found)
    assert len(mine.legends) == 1


# The notebook


def executed(smoke, path, *given: str) -> tuple[list[str], list[str]]:
    """The pictures of the notebook, run with other parameters, and the types of all its outputs."""
    done = call(smoke, "python", "-m", "deconvnet.pipeline.run_notebook", "explore", str(path), *given)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    data = [output.get("data", {}) for cell in cells for output in cell.outputs]
    return [shown["image/png"] for shown in data if "image/png" in shown], [key for shown in data for key in shown]


def test_the_numbers_of_the_first_cell_reach_the_pictures(smoke, tmp_path):
    """Without a CRF and with another proposal all pictures are others."""
    pictures, types = executed(smoke, tmp_path / "explore.ipynb")
    assert "application/vnd.jupyter.widget-view+json" in types
    assert len(pictures) == 6  # the result, and five layers
    given = ("-p", "gaussian", "0", "-p", "bilateral", "0", "-p", "proposal", "2")
    other, _ = executed(smoke, tmp_path / "other.ipynb", *given)
    assert all(a != b for a, b in zip(pictures, other, strict=True))

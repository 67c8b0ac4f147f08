"""Sliders change what is shown; without widgets there is a line that says what to do."""

import sys
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from conftest import call
from PIL import Image

from deconvnet.evaluation import decoder_energy

SCRIPT = """
import sys, time
import numpy as np
from deconvnet import explore
from deconvnet.errors import UserError
explorer = explore.Explorer(most=20)
explorer.open(explorer.names[0])
noise = np.random.default_rng(0).normal(size=explorer.whole.shape)
explorer.whole = (3 * noise).astype(np.float32)  # a network of seconds of training may leave the CRF nothing to smooth
seen, seconds, show = {}, {}, explorer.show
explorer.show = lambda **choices: seen.update(choices) or show(**choices)
box = explore.panel(explorer)
controls = {c.description: c for c in box.children[0].children}
said, result, inside = box.children[1:]
def change(name, value, picture):
    before, started = picture.value, time.monotonic()
    controls[name].value = value
    seconds[name] = round(time.monotonic() - started, 2)
    assert said.value == "", said.value
    assert picture.value != before, name
change("proposals", 1, result)
change("proposals", 20, result)
change("windows by", "mean", result)
change("ensemble", "product", result)
assert (seen["proposals"], seen["aggregation"], seen["rule"]) == (20, "mean", "product")
change("ensemble", "mean", result)
change("CRF, near", 9.0, result)
change("CRF, colour", 8.0, result)
assert (seen["kernel"].gaussian_weight, seen["kernel"].bilateral_weight) == (9.0, 8.0)
change("layer", explorer.layers[0], inside)
change("window", 3, inside)
change("image", explorer.names[1], result)
change("image", sys.argv[1], result)
controls["image"].value = "nowhere.jpg"
assert "nowhere.jpg is no image of val and no file" in said.value, said.value
assert explorer.truth is None and max(explorer.image.shape) <= explore.LARGEST
print("all changed; seconds of a change:", seconds)
opening = seconds.pop("image")  # the networks on all windows: done once for an image
assert max(seconds.values()) < 5 and opening < 60
"""


def test_every_slider_changes_the_picture(smoke, tmp_path):
    photograph = np.random.default_rng(0).integers(0, 256, (300, 700, 3), dtype=np.uint8)
    Image.fromarray(photograph).save(tmp_path / "mine.png")
    done = call(smoke, "python", "-c", SCRIPT, str(tmp_path / "mine.png"), MPLBACKEND="agg")
    assert "all changed" in done.stdout, done.stderr[-3000:]
    assert done.returncode == 0, done.stdout
    print(done.stdout)


def test_without_widgets_there_is_a_line(monkeypatch, capsys):
    from deconvnet import explore

    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert explore.panel(None) is None
    assert "change the numbers in the cells below" in capsys.readouterr().out


@pytest.mark.parametrize(("gaussian", "bilateral"), [(0, 0), (3, 5)])
def test_a_crf_of_no_strength_is_none(gaussian, bilateral):
    from deconvnet import explore
    from deconvnet.config.schema import Kernel

    base = Kernel(gaussian_weight=1, gaussian_xy=2, bilateral_weight=3, bilateral_xy=4, bilateral_rgb=5)
    kernel = explore.kernel_of(base, gaussian, bilateral)
    assert (kernel is None) == (gaussian == 0)
    if kernel:
        assert (kernel.gaussian_weight, kernel.bilateral_weight, kernel.bilateral_xy) == (3, 5, 4)


def test_strengths_that_are_not_given_stay():
    from deconvnet import explore
    from deconvnet.config.schema import Kernel

    base = Kernel(gaussian_weight=1, gaussian_xy=2, bilateral_weight=3, bilateral_xy=4, bilateral_rgb=5)
    assert explore.kernel_of(base, None, None) == base
    assert explore.kernel_of(base, None, 7).gaussian_weight == 1


@pytest.fixture
def explorer(monkeypatch):
    """One image of two halves, noisy scores of both networks, one window; nothing of a run is needed."""
    from deconvnet import explore
    from deconvnet.config import params
    from deconvnet.networks.deconvnet import DeconvNet

    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    rng, made = np.random.default_rng(0), object.__new__(explore.Explorer)
    made.image = np.repeat(np.where(np.arange(32) < 16, 40, 200).astype(np.uint8)[None, :, None], 24, axis=0).repeat(
        3, 2
    )
    made.truth, made.source, made.settings = None, "halves", params.validate(params.compose("smoke"), "smoke")
    made.whole = rng.normal(size=(21, 24, 32)).astype(np.float32)
    made.windows, made.scores = np.array([[0, 0, 32, 24]]), torch.from_numpy(rng.normal(size=(1, 21, 8, 8))).float()
    net = DeconvNet(blocks=((4, 1), (4, 1)), fc=8, size=16, std=58).eval()
    made.predictor, made.layers = SimpleNamespace(deconvnet=net), decoder_energy.layer_names(net)
    return made


def test_the_crf_s_strengths_change_the_picture(explorer):
    from deconvnet import explore
    from deconvnet.config.schema import Kernel

    base = Kernel(gaussian_weight=1, gaussian_xy=1, bilateral_weight=1, bilateral_xy=5, bilateral_rgb=5)
    strengths = [(1, 1), (6, 1), (1, 6)]
    maps = [explorer.segment(kernel=explore.kernel_of(base, *s))["EDeconvNet+CRF"] for s in strengths]
    pictures = [explore.png(explorer.show(kernel=explore.kernel_of(base, *s))) for s in strengths]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (maps[i] != maps[j]).any()
        assert pictures[i] != pictures[j]
    assert explore.png(explorer.show(kernel=base)) == pictures[0]


def test_a_layer_is_titled_by_the_window_it_shows(explorer):
    axes = explorer.layer("deconv1", window=7, channels=2).axes
    assert axes[0].get_title() == "window 0"  # there is no eighth
    assert [axis.get_title().split(",")[0] for axis in axes[1:]] == ["deconv1"] * 2


# The notebook to explore with


def executed(smoke, path, *given: str) -> list:
    """The code cells of the notebook, run with other parameters."""
    done = call(smoke, "python", "-m", "deconvnet.pipeline.run_notebook", "explore", str(path), *given)
    assert done.returncode == 0, done.stderr[-2000:]
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def plain(smoke, tmp_path_factory) -> list:
    return executed(smoke, tmp_path_factory.mktemp("explore") / "explore.ipynb")


def pictures(cells: list) -> list[str]:
    data = [output.get("data", {}) for cell in cells for output in cell.outputs]
    return [shown["image/png"] for shown in data if "image/png" in shown]


def test_explore_runs_and_every_cell_answers(plain):
    keys = [key for cell in plain for output in cell.outputs for key in output.get("data", {})]
    assert "application/vnd.jupyter.widget-view+json" in keys
    assert len(pictures(plain)) == 6  # the result, and five layers


def test_plain_cells_set_the_crf_and_the_window(smoke, plain, tmp_path):
    """The numbers of the first cell reach the pictures: without a CRF and with another window all are others."""
    given = ("-p", "gaussian", "0", "-p", "bilateral", "0", "-p", "window", "2")
    other = pictures(executed(smoke, tmp_path / "other.ipynb", *given))
    assert all(a != b for a, b in zip(pictures(plain), other, strict=True))

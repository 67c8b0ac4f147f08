"""Sliders change what is shown; without widgets there is a line that says what to do."""

import sys

import numpy as np
import pytest
from conftest import call
from PIL import Image

SCRIPT = """
import sys, time
from deconvnet import explore
from deconvnet.errors import UserError
explorer = explore.Explorer(most=20)
explorer.open(explorer.names[0])
seen, show = {}, explorer.show
explorer.show = lambda **choices: seen.update(choices) or show(**choices)
box = explore.panel(explorer)
controls = {c.description: c for c in box.children[0].children}
said, result, inside = box.children[1:]
def change(name, value, picture):
    before, started = picture and picture.value, time.monotonic()
    controls[name].value = value
    assert said.value == "", said.value
    assert picture is None or picture.value != before, name
    assert time.monotonic() - started < 5, name
change("proposals", 1, result)
change("proposals", 20, result)
change("windows by", "mean", result)
change("ensemble", "product", result)
change("CRF, near", 9.0, None)
change("CRF, colour", 8.0, None)
assert (seen["proposals"], seen["aggregation"], seen["rule"]) == (20, "mean", "product")
assert (seen["kernel"].gaussian_weight, seen["kernel"].bilateral_weight) == (9.0, 8.0)
change("layer", explorer.layers[0], inside)
change("window", 3, inside)
change("image", explorer.names[1], result)
change("image", sys.argv[1], result)
controls["image"].value = "nowhere.jpg"
assert "nowhere.jpg is no image of val and no file" in said.value, said.value
assert explorer.truth is None and max(explorer.image.shape) <= explore.LARGEST
print("all changed")
"""


def test_every_slider_changes_the_picture(smoke, tmp_path):
    photograph = np.random.default_rng(0).integers(0, 256, (300, 700, 3), dtype=np.uint8)
    Image.fromarray(photograph).save(tmp_path / "mine.png")
    done = call(smoke, "python", "-c", SCRIPT, str(tmp_path / "mine.png"), MPLBACKEND="agg")
    assert "all changed" in done.stdout, done.stderr[-3000:]


def test_without_widgets_there_is_a_line(monkeypatch, capsys):
    from deconvnet import explore

    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert explore.panel(None) is None
    assert "change the numbers in the cells below" in capsys.readouterr().out


@pytest.mark.parametrize(("gaussian", "bilateral"), [(0, 0), (3, 5)])
def test_a_crf_of_no_strength_is_none(gaussian, bilateral):
    from deconvnet import explore
    from deconvnet.params import Kernel

    base = Kernel(gaussian_weight=1, gaussian_xy=2, bilateral_weight=3, bilateral_xy=4, bilateral_rgb=5)
    kernel = explore.kernel_of(base, gaussian, bilateral)
    assert (kernel is None) == (gaussian == 0)
    if kernel:
        assert (kernel.gaussian_weight, kernel.bilateral_weight, kernel.bilateral_xy) == (3, 5, 4)

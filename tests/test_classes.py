"""Class lists as tools write them, and how number, names and colours follow through networks, measures and tables."""

import numpy as np
import pandas as pd
import pytest
import torch

from deconvnet.config import params, paths
from deconvnet.data import classes, voc
from deconvnet.data.reading import FileError
from deconvnet.evaluation import errors, metrics, per_image
from deconvnet.evaluation.methods import METHODS
from deconvnet.networks import build
from deconvnet.report import figures, tables

LABELMAP = """# label:color_rgb:parts:actions
cat:250,50,83::
background:0,0,0::
dog: big:10,128,250:head,tail:runs
"""


def write(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_folder_without_a_list_has_vocs_classes(tmp_path):
    assert classes.read(tmp_path) is classes.VOC
    assert (len(classes.VOC), classes.VOC.are_vocs) == (21, True)
    assert (classes.VOC.palette == classes.colour_map()).all()
    classes.write(tmp_path, classes.VOC)
    assert list(tmp_path.iterdir()) == []


def test_cvats_labelmap(tmp_path):
    """The background comes first, wherever its line is; a name may have a colon."""
    own = classes.read(write(tmp_path, "labelmap.txt", LABELMAP))
    assert own.names == ("background", "cat", "dog: big")
    assert own.colours == ((0, 0, 0), (250, 50, 83), (10, 128, 250))
    assert own.moved
    assert own.palette[[1, 2, 255]].tolist() == [[250, 50, 83], [10, 128, 250], [224, 224, 192]]
    classes.write(tmp_path, own)
    again = classes.read(tmp_path)
    assert (again.names, again.colours, again.moved) == (own.names, own.colours, False)


@pytest.mark.parametrize("name", ["class_names.txt", "labels.txt"])
@pytest.mark.parametrize("text", ["_background_\ncat\ndog", "__ignore__\n_background_\ncat\ndog\n", "cat\ndog\n"])
def test_a_plain_list_has_vocs_colours(tmp_path, name, text):
    own = classes.read(write(tmp_path, name, text))
    assert own.names == ("background", "cat", "dog")
    assert own.colours == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert not own.moved


def test_an_ignored_class_is_void_in_its_own_colour(tmp_path):
    own = classes.read(write(tmp_path, "labelmap.txt", "background:0,0,0::\ncat:1,2,3::\nignored:9,9,9::\n"))
    assert own.names == ("background", "cat")
    assert own.void == (9, 9, 9)


WRONG = {
    "background twice": ("class_names.txt", "_background_\ncat\nbackground\n", "names the class background 2 times"),
    "class twice": ("labels.txt", "cat\ncat\n", "names the class cat 2 times"),
    "background late": ("labels.txt", "cat\nbackground\n", "names the background after another class"),
    "no class": ("class_names.txt", "_background_\n", "names no class beside the background"),
    "empty": ("labelmap.txt", "# label:color_rgb:parts:actions\n", "names no class beside the background"),
    "too many": ("labels.txt", "".join(f"c{i}\n" for i in range(255)), "names 256 classes with the background"),
    "one colour": ("labelmap.txt", "a:1,2,3::\nb:1,2,3::\n", "gives a, b one colour, 1,2,3"),
    "black": ("labelmap.txt", "a:0,0,0::\nb:1,2,3::\n", "gives background, a one colour, 0,0,0"),
    "no colour": ("labelmap.txt", "a:::\n", "has the line 'a:::', which is not name:red,green,blue"),
    "colour": ("labelmap.txt", "a:1,2,256::\n", "has the line 'a:1,2,256::'"),
    "column": ("labels.txt", "mean\n", "has the class 'mean', a name that tables cannot show"),
    "bar": ("labels.txt", "a|b\n", "has the class 'a|b'"),
}


@pytest.mark.parametrize(("name", "text", "problem"), WRONG.values(), ids=WRONG)
def test_wrong_lists(tmp_path, name, text, problem):
    with pytest.raises(FileError, match=name) as caught:
        classes.read(write(tmp_path, name, text))
    assert caught.value.problem.startswith(problem)


def test_everything_wrong_with_a_list_is_said_at_once(tmp_path):
    with pytest.raises(FileError) as caught:
        classes.read(write(tmp_path, "labels.txt", "cat\ncat\nmean\nbackground\n"))
    assert caught.value.problem.count(";") == 2


@pytest.fixture(params=[2, 60])
def own(request, tmp_path, monkeypatch):
    """The names of the data set of this run: the background and one class, or fifty-nine."""
    monkeypatch.setattr(paths, "VOC", tmp_path / "voc")
    names = ["background", *(f"class {i}" for i in range(1, request.param))]
    write(paths.VOC, "class_names.txt", "\n".join(names))
    return names


def test_networks_score_each_class(own):
    settings = params.validate(params.compose("smoke"), "smoke")
    size = settings.network.size
    image = torch.zeros(1, 3, size, size)
    for net in (build.make_deconvnet(settings), build.make_fcn(settings)):
        assert net.eval()(image).shape == (1, len(own), size, size)
    assert build.make_classifier(settings).eval()(image).shape == (1, len(own))


def test_measures_count_each_class(own):
    """Of 6 pixels of the last class 4 are right, the others are taken for background: IoU 4/6, and 2/4 of it."""
    last = len(own) - 1
    ground_truth, predicted = np.array([[last] * 6 + [0, 0, 255]]), np.array([[last] * 4 + [0] * 5])
    matrix = metrics.confusion(ground_truth, predicted)
    assert matrix.shape == (len(own),) * 2
    assert metrics.mean_iou(matrix) == pytest.approx((4 / 6 + 2 / 4) / 2)
    counts = per_image.image_counts(ground_truth, predicted)
    assert counts[:, [0, last]].tolist() == [[2, 4], [2, 6], [4, 4]]
    found = errors.per_class(counts[None])
    assert list(found) == own
    assert found[own[-1]] == {"precision": 1, "recall": pytest.approx(4 / 6)}
    with pytest.raises(ValueError, match=f"classes are 0…{last}"):
        metrics.confusion(np.zeros((1, 1)), np.full((1, 1), len(own)))


def test_tables_have_own_classes_and_no_published_row(own, tmp_path):
    per_class = {method: dict.fromkeys(own, 0.25) | {"mean": 0.5} for method in METHODS}
    table = tables.table1(per_class, "voc", "val")
    assert list(table) == ["data", "source", *own, "mean"]
    assert list(table.index) == list(METHODS.values())
    results = tables.comparison([{m: {"mean_iou": 0.5} | {f"recall_{s}": 0.1 for s in voc.SIZES} for m in METHODS}])
    assert "paper" not in results
    tables.write(table, results, "caption", tmp_path)
    page = (tmp_path / "table1.md").read_text()
    assert f"| {own[-1]} " in page
    assert "VOC 2012" not in page
    tables.write_confusion({"objects/label": [1], "objects/majority/fcn8s": [0.0]}, {"fcn8s": ""}, tmp_path / "c")
    assert pd.read_csv(tmp_path / "c" / "fcn8s.csv").values.tolist() == [["class 1", "background"]]


def test_figures_have_own_colours_and_names(own):
    write(paths.VOC, "labelmap.txt", "".join(f"{name}:{i},{2 * i},7::\n" for i, name in enumerate(own)))
    labels = np.array([[0, len(own) - 1]])
    figure = figures.grid([[labels]], ["labels"])
    figures.add_legend(figure, [labels])
    assert [text.get_text() for text in figure.legends[0].texts] == [own[0], own[-1]]
    assert figure.axes[0].images[0].get_array()[0, 1].tolist() == [len(own) - 1, 2 * (len(own) - 1), 7]

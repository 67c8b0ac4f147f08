"""Any id that the check accepts is the same id in every file that the stages leave."""

import json
import shutil
import tarfile
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_site import chromium, folder  # noqa: F401 (fixtures)
from test_voc import write_folder, write_image, write_list

from deconvnet.data import reading, validate, voc
from deconvnet.images import store
from deconvnet.pipeline import submission
from deconvnet.report import figures

ODD = [
    "000032", "007", "1e5", "-1", "0x10", "1_000", "inf", "nan", "NA", "null", "None", "True", "2007-01-01", "file",
    "a", "a.npy", "a_steps", ".hidden", "-p", "~", "a b", "a,b", 'a"b', "'a'", "#a", "a#b", "50%", "%41", "a?b=c&d",
    "*", "[a]", "{a}", "$a", "$x_{2$", "a_b^c", "<b>", "&amp;", "|", "`a`", "é", "e\u0301", "日本", "🙂", "x" * 240,
]  # fmt: skip


def accepted(name: str) -> bool:
    return bool(name) and name == name.strip() and not reading.wrong_id(name)


ids = st.lists(st.sampled_from(ODD) | st.text(min_size=1, max_size=20).filter(accepted), min_size=1, unique=True)
generated = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def test_the_check_accepts_the_odd_ids():
    assert all(map(accepted, ODD))


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory) -> Path:
    """ODD is train; c is val."""
    root = write_folder(tmp_path_factory.mktemp("odd") / "voc")
    for name in ODD:
        write_image(root, name)
    write_list(root, "train", "\n".join(ODD))
    return root


def test_a_folder_of_odd_ids_is_sound_and_its_objects_are_read_as_they_were(odd_folder, tmp_path):
    assert validate.error_messages(odd_folder, ["train", "val"]) == []
    names = voc.read_list(odd_folder, "train")
    assert names == ODD
    objects = voc.objects(odd_folder, names).assign(split="train")
    objects.to_csv(tmp_path / "objects.csv", index=False)
    found = voc.read_objects(tmp_path / "objects.csv", "train")
    assert found["image"].tolist() == [name for name in ODD for _ in range(2)]  # each has a person and a car
    assert found.drop(columns=["image", "split"]).equals(objects.drop(columns=["image", "split"]))
    assert voc.read_objects(tmp_path / "objects.csv", "val").empty


@generated
@given(ids)
@example([f"{i:06d}" for i in range(32, 46)])
@example(["file", "a", "a.npy", "a.npy.npy"])
def test_ids_survive_the_files_of_a_split(names):
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "PROPOSALS", Path(root))
        table = voc.objects("", []).reindex(range(len(names))).fillna(1).assign(image=names, split="val")
        table.to_csv(Path(root, "objects.csv"), index=False)
        assert voc.read_objects(Path(root, "objects.csv"), "val")["image"].tolist() == names
        proposals = {name: np.full((i, 5), i, np.float32) for i, name in enumerate(names)}
        store.save_proposals(proposals, "val")
        found = store.load_proposals("val")
        assert list(found) == names
        assert all(
            (found[name] == proposals[name]).all() and len(found[name]) == len(proposals[name]) for name in names
        )


def test_proposals_have_the_bytes_of_numpys_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PROPOSALS", tmp_path)
    proposals = {"val_00001": np.ones((3, 5), np.float32), "é": np.zeros((0, 5), np.float32)}
    store.save_proposals(proposals, "val")
    np.savez(tmp_path / "numpy.npz", **proposals)
    assert (tmp_path / "val.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_title_shows_the_id_itself(name, tmp_path):
    """No formula; escapes for letters that the font lacks; of a long id both ends."""
    figure = figures.grid([[np.zeros((4, 6), np.uint8)]], [name], [f"why\n{name}"])
    figures.save(figure, tmp_path / "figure.png", f"{name} · caption")  # a missing letter is a warning: an error here
    texts = [figure.axes[0].title, figure.axes[0].yaxis.label, figure.texts[0]]
    plt.close(figure)
    assert not any(text.get_parse_math() for text in texts)
    shown = {"日本": r"\u65e5\u672c", "🙂": r"\U0001f642", "x" * 240: f"{'x' * 20}…{'x' * 15}"}.get(name, name)
    assert texts[0].get_text() == shown
    assert texts[1].get_text() == f"why\n{shown}"


def test_the_servers_archive_has_each_label_map_under_its_id(tmp_path):
    voc.list_path(tmp_path / "data" / "voc", "val").parent.mkdir(parents=True)
    voc.list_path(tmp_path / "data" / "voc", "val").write_text("\n".join(ODD), encoding="utf-8")
    for name in ODD:
        voc.save_mask(tmp_path / "data" / "predictions" / "fcn8s" / f"{name}.png", np.zeros((2, 2)))
    with tarfile.open(submission.write_archive(tmp_path, "fcn8s")) as archive:
        assert [Path(name).name.removesuffix(".png") for name in archive.getnames()] == ODD


def test_the_reports_browser_finds_the_pictures_of_odd_ids(folder, chromium, tmp_path):  # noqa: F811
    copy = tmp_path / "site"
    shutil.copytree(folder, copy)
    head, data = (copy / "assets" / "data.js").read_text().split(" = ")
    data = json.loads(data.rstrip(";\n"))
    image, names = data["images"][0], [*ODD, "a_b"]
    data["images"] = [image | {"name": name} for name in names]
    (copy / "assets" / "data.js").write_text(f"{head} = {json.dumps(data)};\n")
    for part in ("{}.jpg", "{}.png", "steps/{}.png"):
        source = copy / "images" / "val" / part.format(image["name"])
        for name in names:
            shutil.copy(source, copy / "images" / "val" / part.format(name))
    page, loaded, failed = chromium.new_page(), set(), []
    page.on("requestfinished", lambda request: loaded.add(request.url))
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.goto((copy / "index.html").as_uri())
    for _ in names:
        page.click("#next")
    page.wait_for_load_state("networkidle")
    page.close()
    assert failed == []
    assert sum("/images/val/" in url for url in loaded) == 3 * len(names)

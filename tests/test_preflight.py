"""data/source.json changes with the files that the data stage reads, and with no others."""

import contextlib
import json
import os
import socket

import numpy as np
import pytest
from stages import STAGES
from test_voc import write_folder, write_image, write_list

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.data import sources, validate, voc
from deconvnet.pipeline import preflight, repro

LISTED = (voc.IMAGES, voc.LABELS, voc.INSTANCES, voc.LISTS)


def listed(tmp_path, profile, data=None):
    """What preflight writes for a profile."""
    settings = params.validate(preflight.settings_of(profile, data), profile)
    preflight.list_source(settings, tmp_path / "data" / "source.json")
    return json.loads((tmp_path / "data" / "source.json").read_text())


def test_only_listed_files_of_a_folder_matter(tmp_path):
    folder = write_folder(tmp_path / "voc")
    before = listed(tmp_path, "voc", folder)
    assert before["source"] == "folder"
    assert before["files"]["count"] == 2 + 3 * 3  # two lists; three images with two masks each
    write_image(folder, "unlisted")
    (folder / "notes.txt").touch()
    assert listed(tmp_path, "voc", folder) == before


STRAYS = {
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to the folder above": lambda path: path.symlink_to(".."),
    "pipe": os.mkfifo,
    "file whose name is no text": lambda path: path.with_name(os.fsdecode(b"caf\xe9")).touch(),
    "unreadable folder": lambda path: path.mkdir(mode=0),
    "unreadable file": lambda path: path.touch(mode=0),
    ".dvcignore": lambda path: path.with_name(".dvcignore").write_text("*\n"),
    "broken dvc.yaml": lambda path: path.with_name("dvc.yaml").write_text("stages: ["),
    "broken .dvc": lambda path: path.with_name("x.dvc").write_text("outs: ["),
    "hundreds of files": lambda path: [path.with_name(f"{path.name}{i}").touch() for i in range(300)],
}


@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS)
def test_what_no_list_names_does_not_matter(tmp_path, stray):
    """Beside and inside each sub-folder: the check passes, the import is the same, and so is what DVC depends on."""
    folder = write_folder(tmp_path / "voc")
    before = listed(tmp_path, "voc", folder)
    for sub in (".", *LISTED):
        stray(folder / sub / "stray")
    for sub in LISTED[:3]:
        with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(folder / sub):
            one.bind("socket")
    assert validate.error_messages(folder, ["train", "val"]) == []
    assert listed(tmp_path, "voc", folder) == before
    sources.import_folder(folder, tmp_path / "out", dev=1, seed=0)
    names = {path.name for path in (tmp_path / "out").rglob("*") if not path.is_dir()}
    assert names == {f"{n}{e}" for n in "abc" for e in (".jpg", ".png")} | {f"{s}.txt" for s in voc.SPLITS}


def test_no_stage_depends_on_the_users_folder():
    assert [dep for dep in STAGES["data"]["deps"] if dep.startswith("data")] == ["data/source.json"]


CHANGES = {
    "photograph": lambda folder: voc.image_path(folder, "a").write_bytes(b"another size"),
    "class mask": lambda folder: os.utime(voc.labels_path(folder, "b"), (0, 0)),
    "instance mask": lambda folder: os.utime(voc.instances_path(folder, "c"), (0, 0)),
    "list": lambda folder: write_list(folder, "train", "b\na\n"),
    "additional list": lambda folder: write_list(folder, "dev", "c\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_listed_file_is_noticed(tmp_path, change):
    folder = write_folder(tmp_path / "voc")
    before = listed(tmp_path, "voc", folder)
    change(folder)
    assert listed(tmp_path, "voc", folder) != before


def test_test_photographs_are_listed(tmp_path):
    folder = write_folder(tmp_path / "VOC2012")
    write_list(folder, "test", "a\nb\n")
    settings = preflight.settings_of("voc2012-trainval", None)
    settings["data"]["test_root"] = str(folder)
    checked, out = preflight.check(settings), tmp_path / "source.json"
    preflight.list_source(checked, out)
    before = json.loads(out.read_text())["files"]
    assert before["count"] == 1 + 2
    os.utime(voc.image_path(folder, "b"), (0, 0))
    preflight.list_source(checked, out)
    assert json.loads(out.read_text())["files"] != before
    voc.image_path(folder, "b").unlink()
    with pytest.raises(UserError, match=r"b\.jpg is missing"):
        preflight.check(settings)


def test_a_relative_folder_starts_at_the_project_wherever_the_command_runs(tmp_path, monkeypatch):
    write_folder(tmp_path / "project" / "my" / "voc")
    monkeypatch.setattr(preflight, "ROOT", tmp_path / "project")
    monkeypatch.chdir(tmp_path)
    settings = preflight.settings_of("voc", None)
    settings["data"] |= {"root": "my/voc", "dev": 1}
    preflight.list_source(preflight.check(settings), tmp_path / "source.json")
    monkeypatch.setattr(repro, "ROOT", tmp_path / "project")
    repro.make_paths_absolute(settings)
    assert settings["data"]["root"] == str(tmp_path / "project" / "my" / "voc")


@pytest.mark.parametrize("profile", ["icons", "voc2012"])
def test_other_sources_list_no_files(tmp_path, profile):
    assert listed(tmp_path, profile) == {"source": profile, "files": None}


def test_images_without_objects_are_said_before_dvc_starts(tmp_path):
    """a has no object: with b held out nothing is left to train on, with a held out nothing to select on."""
    folder = write_folder(tmp_path / "voc")
    write_image(folder, "a", *np.zeros((2, 20, 30), np.uint8))
    found = set()
    for seed in range(10):
        settings = params.merge(preflight.settings_of("voc", folder), {"data": {"dev": 1, "seed": seed}})
        with pytest.raises(UserError, match=r"No image of (train|dev) has an object, with dev = 1") as raised:
            preflight.check(settings)
        found.add(str(raised.value).split()[3])
    assert found == {"train", "dev"}

"""data/source.json changes with the files that the data stage reads, and with no others."""

import json
import os

import pytest
from test_voc import write_folder, write_image, write_list

from deconvnet.config import params
from deconvnet.config.errors import UserError
from deconvnet.data import voc
from deconvnet.pipeline import preflight, repro


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
    settings["data"]["root"] = "my/voc"
    preflight.list_source(preflight.check(settings), tmp_path / "source.json")
    monkeypatch.setattr(repro, "ROOT", tmp_path / "project")
    repro.make_paths_absolute(settings)
    assert settings["data"]["root"] == str(tmp_path / "project" / "my" / "voc")


@pytest.mark.parametrize("profile", ["icons", "voc2012"])
def test_other_sources_list_no_files(tmp_path, profile):
    assert listed(tmp_path, profile) == {"source": profile, "files": None}

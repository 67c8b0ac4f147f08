"""data/source.json changes with the files that the data stage reads, and with no others."""

import json
import os

import pytest
from test_voc import write_folder, write_image, write_list

from deconvnet.config import params
from deconvnet.data import voc
from deconvnet.pipeline import preflight


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


@pytest.mark.parametrize("profile", ["icons", "voc2012"])
def test_other_sources_list_no_files(tmp_path, profile):
    assert listed(tmp_path, profile) == {"source": profile, "files": None}

"""The project without Git, or with other line ends; and what is said before DVC starts."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import call, commit, git

from deconvnet.config import machine, params
from deconvnet.config.errors import UserError
from deconvnet.pipeline import preflight, repro


@pytest.fixture
def archive(clone, tmp_path) -> Path:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=clone, capture_output=True, check=True).stdout
    subprocess.run(["tar", "x"], cwd=folder, input=packed, check=True)
    return folder


def test_dvc_works_in_an_unpacked_archive_and_in_a_repository_made_of_it(archive):
    assert call(archive, "dvc", "status", "experiment").returncode != 0  # so the next lines test something
    for _ in range(2):
        repro.follow_git(archive)
        assert call(archive, "dvc", "status", "experiment").returncode == 0
    git(archive, "init", "-q")
    commit(archive, "of the archive")
    assert call(archive, "dvc", "metrics", "diff").returncode != 0  # DVC still works without Git
    repro.follow_git(archive)
    done = call(archive, "dvc", "metrics", "diff", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {})


def test_without_dvcs_folder_too(archive):
    """Some programs leave out names that begin with a dot."""
    subprocess.run(["rm", "-r", ".dvc"], cwd=archive, check=True)
    repro.follow_git(archive)
    assert call(archive, "dvc", "status", "experiment").returncode == 0


def test_a_clone_for_windows_has_the_same_bytes(clone, tmp_path):
    """DVC compares bytes, so line ends must be those of the committed run."""
    folder, settings = tmp_path / "clone", ["-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    git(tmp_path, *settings, "clone", "-q", *settings, str(clone), str(folder))
    for name in git(clone, "ls-files", "-z").split("\0")[:-1]:
        assert (folder / name).read_bytes() == (clone / name).read_bytes(), name


# Before DVC starts


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DECONVNET_DEVICE", "gpu"),
        ("DECONVNET_PRECISION", "fp16"),
        ("DECONVNET_CORES", "all"),
        ("DECONVNET_PROCESSES", "-1"),
        ("DECONVNET_MICRO_BATCHES", "1.5"),
        ("DECONVNET_WORKERS", ""),
        ("DECONVNET_THREADS", "two"),
        ("DECONVNET_CHECKPOINT", "1m"),
    ],
)
def test_wrong_settings_of_the_machine_are_named_before_dvc_starts(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=name):
        preflight.check(params.compose("smoke"))


def test_settings_of_the_machine_that_work_are_accepted(monkeypatch):
    for name in ("DEVICE", "PRECISION", "CORES", "PROCESSES", "MICRO_BATCHES", "WORKERS", "THREADS", "CHECKPOINT"):
        monkeypatch.delenv(f"DECONVNET_{name}", raising=False)
    machine.check()
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    monkeypatch.setenv("DECONVNET_PROCESSES", "4")
    preflight.check(params.compose("voc2012"))


def test_batches_that_processes_cannot_share_are_named_before_the_downloads(monkeypatch):
    monkeypatch.setenv("DECONVNET_PROCESSES", "3")
    with pytest.raises(UserError, match="8 micro-batches cannot be shared evenly by 3 processes"):
        preflight.check(params.compose("voc2012"))
    preflight.check(params.compose("icons"))  # one micro-batch: one process trains

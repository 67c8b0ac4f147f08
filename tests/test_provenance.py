"""reports/provenance.json says what a run used, not what the machine has; and nothing that git cannot say."""

import json

import pytest
import torch
from conftest import commit, git
from test_distributed import make_project, run

from deconvnet.config import machine
from deconvnet.pipeline import provenance
from deconvnet.pipeline.provenance import device_names, processor

H100, A100 = "NVIDIA H100", "NVIDIA A100"
DEVICES = {
    "no network": (set(), processor()),
    "the processor": ({"cpu"}, processor()),
    "one GPU": ({f"cuda:0 {H100}"}, H100),
    "the second GPU": ({f"cuda:1 {A100}"}, A100),
    "several": ({f"cuda:0 {H100}", f"cuda:1 {H100}"}, f"2 x {H100}"),
    "of two kinds": ({f"cuda:0 {H100}", f"cuda:1 {A100}"}, f"{A100}, {H100}"),
    "both": ({"cpu", f"cuda:0 {H100}"}, f"{H100}, {processor()}"),
}


@pytest.mark.parametrize(("devices", "expected"), DEVICES.values(), ids=DEVICES)
def test_a_stage_names_what_it_used(devices, expected):
    assert device_names(devices) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DECONVNET_DEVICE": "cpu"}, "cpu\n"),
        ({}, f"cuda:0 {H100}\n"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, f"cuda:1 {H100}\n"),
    ],
)
def test_a_device_is_noted_once_when_it_is_used(monkeypatch, tmp_path, variables, expected):
    """On a machine with two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: H100)
    monkeypatch.setenv("DECONVNET_USED", str(tmp_path / "used"))
    monkeypatch.delenv("DECONVNET_DEVICE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not (tmp_path / "used").exists()
    for _ in range(3):
        machine.device()
    assert (tmp_path / "used").read_text() == expected


@pytest.mark.slow
def test_a_run_on_the_processor_does_not_name_the_gpu(tmp_path):
    """With an nvidia-smi that finds one: torch of the stage uses none, for whatever reason."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nvidia-smi").write_text(f"#!/bin/sh\necho {H100}\n")
    (programs / "nvidia-smi").chmod(0o755)
    folder = make_project(tmp_path / "project")
    done = run(folder, 1, PATH=f"{programs}:/usr/bin:/bin", CUDA_VISIBLE_DEVICES="", DECONVNET_DEVICE="")
    assert done.returncode == 0, done.stderr[-2000:]
    written = json.loads((folder / "reports" / "provenance.json").read_text())
    assert written["devices"] == {"tiny": processor()}


def test_a_finished_run_sums_up_its_stages(monkeypatch, tmp_path):
    """The stages of an earlier run, on other devices, are not done again by one that has nothing to do."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "experiment.json").write_text('{"id": "0123"}')
    provenance.record_stage("train_stage1", 2.0, {f"cuda:0 {H100}"}, tmp_path)
    provenance.record_stage("data", 1.0, set(), tmp_path)
    provenance.record(tmp_path)
    found = provenance.known(tmp_path)
    assert found["devices"] == {"data": processor(), "train_stage1": H100}
    assert found["device"] == "; ".join(sorted([processor(), H100]))
    assert found["seconds"] == {"data": 1.0, "train_stage1": 2.0}


# Git


def test_commit_and_changes_of_a_checkout(tmp_path):
    git(tmp_path, "init", "-q")
    assert provenance.state_in_git(tmp_path) == (None, [])  # no commit yet
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").touch()
    commit(tmp_path, "first")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    assert provenance.state_in_git(tmp_path) == (head, [])
    (tmp_path / "src" / "b.py").touch()
    (tmp_path / "unrelated").touch()
    assert provenance.state_in_git(tmp_path) == (head, ["src/b.py"])


def test_an_unpacked_archive_has_no_commit(tmp_path):
    """Not that of the repository in which it happens to lie."""
    assert provenance.state_in_git(tmp_path) == (None, None)
    git(tmp_path, "init", "-q")
    (tmp_path / "unpacked").mkdir()
    commit(tmp_path, "of something else")
    assert provenance.state_in_git(tmp_path / "unpacked") == (None, None)


def test_without_git_nothing_is_said(monkeypatch, tmp_path):
    git(tmp_path, "init", "-q")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.state_in_git(tmp_path) == (None, None)

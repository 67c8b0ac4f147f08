"""What does not belong to the committed run is named; two runs are compared output by output."""

import shutil

import pytest
import yaml
from conftest import call, commit

from deconvnet.pipeline import repro, verify


@pytest.fixture(scope="module")
def finished(clone, smoke, tmp_path_factory):
    """A project in git whose committed run is the smoke run, and whose data and models are not at hand."""
    folder = tmp_path_factory.mktemp("verify") / "project"
    ignored = shutil.ignore_patterns("runs", ".dvc", "reports", "dvc.lock", "params.yaml", "source.json")
    shutil.copytree(clone, folder, ignore=ignored)
    kept = shutil.ignore_patterns("notebooks", "site", "provenance.json")
    shutil.copytree(smoke / "reports", folder / "reports", ignore=kept)
    for name in ("dvc.lock", "params.yaml", "data/source.json"):
        shutil.copy2(smoke / name, folder / name)
    call(folder, "dvc", "init", "--no-scm", "-f", "-q")
    commit(folder, "a run")
    return folder


SPOILED = {
    "src/deconvnet/networks": ("src/deconvnet/networks/deconvnet.py", "", "\n# a comment\n"),
    "reports/metrics.json": ("reports/metrics.json", '"recall_large": 0.', '"recall_large": 0.9'),
    "reports/experiment.json": ("reports/experiment.json", '"id": "', '"id": "0'),
    "params.yaml: stage1": ("params.yaml", "stage1: {optimizer: adamw", "stage1: {optimizer: sgd"),
    "reports/seeds.json": ("reports/seeds.json", '"experiment": null', '"experiment": "another"'),
    "data/source.json": ("data/source.json", '"icons"', '"folder"'),
}


def test_a_finished_run_belongs_together(finished):
    assert verify.stale(finished) == []


@pytest.mark.parametrize("named", SPOILED)
def test_what_does_not_belong_is_named(finished, named):
    name, old, new = SPOILED[named]
    text = (finished / name).read_text()
    assert old in text
    try:
        (finished / name).write_text(text.replace(old, new, 1) if old else text + new)
        assert named in verify.stale(finished)
    finally:
        (finished / name).write_text(text)


def test_interrupted_runs_get_their_reports_back(tmp_path, monkeypatch):
    taken = tmp_path / "reports" / "metrics.json"
    taken.parent.mkdir()
    taken.write_text("{}")

    def killed(folder, *arguments):
        taken.unlink()  # as DVC does before a stage runs
        raise KeyboardInterrupt

    def failed(folder, *arguments):
        assert taken.read_text() == "{}"
        taken.unlink()
        return 1

    monkeypatch.setattr(repro, "dvc", killed)
    with pytest.raises(KeyboardInterrupt):
        repro.reproduce(tmp_path, [])
    assert not taken.exists()
    monkeypatch.setattr(repro, "dvc", failed)
    assert repro.reproduce(tmp_path, []) == 1
    assert taken.read_text() == "{}"


@pytest.mark.parametrize(("status", "arguments", "stays"), [(0, [], False), (1, [], True), (0, ["data"], True)])
def test_a_failed_notebook_stays_until_everything_has_succeeded(tmp_path, monkeypatch, status, arguments, stays):
    failed = tmp_path / "reports" / "notebooks" / "train_stage2.failed.ipynb"
    failed.parent.mkdir(parents=True)
    failed.write_text("{}")
    monkeypatch.setattr(repro, "dvc", lambda folder, *arguments: status)
    assert repro.reproduce(tmp_path, arguments) == status
    assert failed.exists() == stays


def test_outputs_that_differ_are_named(tmp_path):
    def run(name: str, **md5: str) -> dict[str, str]:
        outs = [{"path": path, "md5": value} for path, value in md5.items()]
        (tmp_path / name).mkdir()
        (tmp_path / name / "dvc.lock").write_text(yaml.safe_dump({"stages": {"first": {"outs": outs}}}))
        return verify.outputs(tmp_path / name)

    first, second = run("first", metrics="1", models="2", gone="3"), run("second", metrics="1", models="9", new="3")
    assert verify.differing(first, first) == []
    assert verify.differing(first, second) == ["gone", "models", "new"]


def test_every_output_of_a_run_is_compared(smoke):
    found = verify.outputs(smoke)
    assert {"models/deconvnet.safetensors", "reports/metrics.json", "reports/figures/figure7.png", "data/voc"} <= {
        *found
    }
    assert all((smoke / path).exists() for path in found)

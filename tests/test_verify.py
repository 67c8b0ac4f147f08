"""What does not belong together is named; two runs are compared file by file; each report has its content id."""

import json
import re
import shutil

import pytest
import yaml

from deconvnet.pipeline import provenance, repro, verify


@pytest.fixture
def project(clone, tmp_path):
    """A copy of a fresh clone, to be spoiled."""
    return shutil.copytree(clone, tmp_path / "project", ignore=shutil.ignore_patterns("runs", ".dvc"))


SPOILED = {
    "src/deconvnet/network.py": ("src/deconvnet/network.py", "", "\n# a comment\n"),
    "reports/metrics.json": ("reports/metrics.json", '"recall_large": 0.', '"recall_large": 0.9'),
    "reports/contents.json": ("reports/contents.json", '": "', '": "0'),
    "params.yaml: stage1": ("params.yaml", "stage1: {optimizer: adamw", "stage1: {optimizer: sgd"),
    "reports/ablations.json": ("reports/ablations.json", '"mean_iou": 0.', '"mean_iou": 0.9'),
    "reports/seeds.json": ("reports/seeds.json", "0.", "0.9"),
    "reports/tolerance.json": ("reports/tolerance.json", "0.", "0.9"),
}
HASHED = "path: {}\n      hash: md5\n      md5: "
OF_VOC = HASHED.format("data/voc")  # what the ablations were made from
OF_SAMPLES = HASHED.format("data/samples")  # what the seeds repeat
SPOILED["ablations/dvc.lock: data/voc"] = ("ablations/dvc.lock", OF_VOC, f"{OF_VOC}0")
SPOILED["seeds/dvc.lock: data/samples"] = ("seeds/dvc.lock", OF_SAMPLES, f"{OF_SAMPLES}0")


@pytest.mark.parametrize("named", SPOILED)
def test_what_does_not_belong_is_named(project, named):
    name, old, new = SPOILED[named]
    before = {*verify.stale_artifacts(project)}
    text = (project / name).read_text()
    assert old in text
    (project / name).write_text(text.replace(old, new, 1) if old else text + new)
    assert {*verify.stale_artifacts(project)} - before == {named}


def test_reports_of_older_code_are_made_again(project, monkeypatch):
    asked = []

    def dvc(folder, *arguments):
        asked.append(arguments)
        return 0

    monkeypatch.setattr(repro, "dvc", dvc)
    for picture in (project / "reports" / "figures").glob("*.png"):  # a PNG goes on after its text with any byte
        picture.write_bytes(re.sub(rb"(content id \w{12})(?=.)", rb"\1aZ", picture.read_bytes(), flags=re.DOTALL))
    assert provenance.stale_reports(project) == []
    repro.reproduce(project, [])
    assert asked == [("repro",)]
    for name in ("tables/table1.md", "figures/figure7.png"):
        page = project / "reports" / name
        page.write_bytes(page.read_bytes().replace(b"content id ", b"content id 0"))
    assert provenance.stale_reports(project) == ["reports/tables/table1.md", "reports/figures/figure7.png"]
    repro.reproduce(project, [])
    assert asked[2:] == [("repro", "--force", "--single-item", *provenance.REPORTING)]
    asked.clear()
    repro.reproduce(project, ["--dry"])
    assert asked == [("repro", "--dry")]


def test_what_a_killed_run_took_from_the_reports_is_put_back(project, monkeypatch):
    taken = project / "reports" / "metrics.json"
    content = taken.read_text()

    def killed(folder, *arguments):
        taken.unlink()  # as DVC does before a stage runs
        raise KeyboardInterrupt

    def failed(folder, *arguments):
        assert taken.read_text() == content
        taken.unlink()
        return 1

    monkeypatch.setattr(repro, "dvc", killed)
    with pytest.raises(KeyboardInterrupt):
        repro.reproduce(project, [])
    assert not taken.exists()
    monkeypatch.setattr(repro, "dvc", failed)
    assert repro.reproduce(project, []) == 1
    assert taken.read_text() == content


@pytest.mark.parametrize(("status", "arguments", "stays"), [(0, [], False), (1, [], True), (0, ["data"], True)])
def test_a_failed_notebook_stays_until_all_is_done(project, monkeypatch, status, arguments, stays):
    failed = project / "reports" / "notebooks" / "train_stage2.failed.ipynb"
    failed.parent.mkdir(exist_ok=True)
    failed.write_text("{}")
    monkeypatch.setattr(repro, "dvc", lambda folder, *arguments: status)
    assert repro.reproduce(project, arguments) == status
    assert failed.exists() == stays


def test_what_differs_is_named():
    first = {"reports/metrics.json": "1", "models/a.safetensors": "2", "data/gone": "3"}
    second = {"reports/metrics.json": "1", "models/a.safetensors": "9", "data/new": "3"}
    assert verify.differing(first, first) == []
    assert verify.differing(first, second) == ["data/gone", "data/new", "models/a.safetensors"]


def test_every_output_and_report_of_a_run_is_compared(smoke):
    found = verify.contents(smoke)
    for name in (
        "models/deconvnet.safetensors",
        "reports/metrics.json",
        "reports/figures/figure7.png",
        "data/objects.csv",
    ):
        assert found[name] == verify.file_hash(smoke / name)
    assert len(found) > 200


def lock(**changed) -> str:
    """Two stages, one behind the other, and one beside them."""
    md5 = {"a.py": "1", "b.py": "2", "c.py": "3"} | changed
    stages = {
        "first": {"deps": [{"path": "a.py", "md5": md5["a.py"]}], "outs": [{"path": "data/x"}]},
        "second": {
            "deps": [{"path": "b.py", "md5": md5["b.py"]}, {"path": "data/x/part", "md5": "any"}],
            "outs": [{"path": "reports/b.json"}, {"path": "reports/notebooks/b.ipynb"}],
        },
        "beside": {"deps": [{"path": "c.py", "md5": md5["c.py"]}], "outs": [{"path": "reports/c.json"}]},
    }
    return yaml.safe_dump({"stages": stages})


def test_a_content_id_follows_all_that_is_behind_and_nothing_else(tmp_path):
    def ids(**changed):
        (tmp_path / "dvc.lock").write_text(lock(**changed))
        return provenance.content_ids(tmp_path)

    before = ids()
    assert [*before] == ["reports/b.json", "reports/c.json"]
    for source, report in (("a.py", "reports/b.json"), ("b.py", "reports/b.json"), ("c.py", "reports/c.json")):
        after = ids(**{source: "other"})
        assert {path for path in before if after[path] != before[path]} == {report}


def test_the_content_id_of_a_long_run_follows_what_the_default_gave_it(tmp_path):
    def ids(d="4", **changed):
        stage = {
            "deps": [{"path": "d.py", "md5": d}, {"path": "reports/b.json", "md5": "any"}],
            "outs": [{"path": "reports/seeds.json"}, {"path": "data/seeds"}],
        }
        (tmp_path / "seeds").mkdir(exist_ok=True)
        (tmp_path / "seeds" / "dvc.lock").write_text(yaml.safe_dump({"stages": {"second": stage}}))
        (tmp_path / "dvc.lock").write_text(lock(**changed))
        return provenance.content_ids(tmp_path)

    before = ids()
    assert [*before] == ["reports/b.json", "reports/c.json", "reports/seeds.json"]
    for changed, reports in (
        ({"d": "other"}, {"reports/seeds.json"}),
        ({"a.py": "other"}, {"reports/b.json", "reports/seeds.json"}),
        ({"c.py": "other"}, {"reports/c.json"}),
    ):
        after = ids(**changed)
        assert {path for path in before if after[path] != before[path]} == reports


def test_every_report_of_a_run_has_its_content_id(smoke):
    ids = json.loads((smoke / "reports" / "contents.json").read_text())
    assert ids == provenance.content_ids(smoke)
    for name in (
        "metrics.json",
        "claims.json",
        "crf.json",
        "proposals.json",
        "tables/table1.md",
        "figures/figure4.png",
    ):
        assert len(ids[f"reports/{name}"]) == 12

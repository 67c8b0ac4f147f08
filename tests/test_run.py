"""Notebooks as stages: executed copies that do not vary from run to run, canonical sources, a whole pipeline."""

import json
import re
from copy import deepcopy
from functools import reduce

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from deconvnet.config.paths import ROOT
from deconvnet.pipeline.run_notebook import run, stable_copy

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())


def stream(name, text):
    return new_output("stream", name=name, text=text)


def executed():
    """What papermill leaves of a notebook with one chatty cell."""
    outputs = [
        stream("stdout", "a\n"),
        stream("stderr", "50%|#####"),
        stream("stdout", "b\n"),
        new_output("display_data", {"text/plain": "<Styler at 0x7f9cf27320d0>", "text/html": "at 0x7f"}),
        stream("stderr", "100%|##########"),
        stream("stdout", "c\n"),
    ]
    timing = {"start_time": "2024-01-01T00:00:00", "duration": 1.5}
    cells = [
        new_markdown_cell("# Title", metadata={"papermill": timing}),
        new_code_cell(
            "print()",
            outputs=outputs,
            execution_count=1,
            metadata={"papermill": timing, "execution": {"iopub.status.busy": "now"}, "tags": ["parameters"]},
        ),
    ]
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python", "version": "3.11.2"},
        "papermill": {"environment_variables": {}, "output_path": "/tmp/x.ipynb"},
        "widgets": {"application/vnd.jupyter.widget-state+json": {}},
    }
    return new_notebook(cells=cells, metadata=metadata)


# Executed copies


def test_standard_error_goes_and_standard_output_is_joined():
    outputs = stable_copy(executed()).cells[1].outputs
    assert [(o.output_type, o.get("name"), o.get("text")) for o in outputs] == [
        ("stream", "stdout", "a\nb\n"),
        ("display_data", None, None),
        ("stream", "stdout", "c\n"),
    ]


def test_an_address_in_memory_goes():
    outputs = stable_copy(executed()).cells[1].outputs
    assert outputs[1].data == {"text/plain": "<Styler>", "text/html": "at 0x7f"}  # html is what its author wrote


def test_what_varies_from_run_to_run_goes():
    notebook = stable_copy(executed())
    assert dict(notebook.metadata) == {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    }
    assert [dict(cell.metadata) for cell in notebook.cells] == [{}, {"tags": ["parameters"]}]
    assert [cell["id"] for cell in notebook.cells] == ["cell-00", "cell-01"]


def test_code_and_counts_stay():
    before, after = executed(), stable_copy(executed())
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert after.cells[1].execution_count == 1


def test_stable_notebooks_stay_as_they_are():
    once = stable_copy(executed())
    assert stable_copy(deepcopy(once)) == once
    nbformat.validate(once)


def test_two_runs_of_one_notebook_give_the_same_bytes():
    first, second = executed(), executed()  # new_*_cell draws random ids
    second.cells[1].outputs[1].text = "49%|####"
    second.cells[1].metadata["papermill"]["duration"] = 9.9
    # The kernel's buffer may split the same text elsewhere.
    second.cells[1].outputs[:1] = [stream("stdout", "a"), stream("stdout", "\n")]
    assert nbformat.writes(first) != nbformat.writes(second)
    assert nbformat.writes(stable_copy(first)) == nbformat.writes(stable_copy(second))


LATE = """
import logging
from ipykernel.iostream import IOPubThread
def stop(self, error=logging.error, stop=IOPubThread.stop):  # ipykernel calls it at its end
    stop(self)
    error("late")
IOPubThread.stop = stop
logging.getLogger("IPKernelApp").error("KeyboardInterrupt caught in kernel.")  # when told to end early
"""


def test_what_a_kernel_logs_after_its_end_is_not_shown(tmp_path, capfd):
    nbformat.write(new_notebook(cells=[new_code_cell(LATE)]), tmp_path / "late.ipynb")
    run(tmp_path / "late.ipynb", tmp_path / "executed.ipynb", {})
    assert capfd.readouterr().err == ""


# Sources


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_canonical(path):
    text = path.read_text()
    notebook = json.loads(text)
    assert text == json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    nbformat.validate(nbformat.reads(text, as_version=4))
    assert notebook["metadata"] == {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    assert [cell["id"] for cell in notebook["cells"]] == [f"cell-{i:02d}" for i in range(len(notebook["cells"]))]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_thin(path):
    cells = nbformat.read(path, as_version=4).cells
    assert max(len(cell.source.splitlines()) for cell in cells if cell.cell_type == "code") <= 15
    assert [cell.metadata.get("tags", []) for cell in cells].count(["parameters"]) == 1
    assert not any(re.search(r"^\s*(def|class) ", cell.source, re.M) for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_explain_themselves_in_markdown(path):
    """One title, at the top; text that is not commented out, as the percent format has it."""
    texts = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert texts[0].startswith("# ")
    titles = [line for text in texts for line in text.splitlines() if line.startswith("# ") or line == "#"]
    assert len(titles) == 1
    assert not titles[0].startswith("# #")


def test_the_data_notebook_begins_with_the_check():
    cells = nbformat.read(ROOT / "notebooks" / "data.ipynb", as_version=4).cells
    first = next(cell.source for cell in cells if cell.cell_type == "code")
    assert "voc.require(paths.VOC, voc.SPLITS)" in first


# The pipeline


def stages():
    """Each stage of dvc.yaml with its matrix spelled out."""
    root = yaml.safe_load((ROOT / "params.yaml").read_text())["data"]["root"]
    for name, stage in PIPELINE["stages"].items():
        text = yaml.safe_dump(stage).replace("${data.root}", root)
        for model in stage.get("matrix", {}).get("model", [None]):
            yield f"{name}-{model}" if model else name, yaml.safe_load(text.replace("${item.model}", str(model)))


def outputs(stage):
    listed = stage.get("outs", []) + stage.get("metrics", [])
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


STAGES = dict(stages())
MADE = [out for stage in STAGES.values() for out in outputs(stage)]


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_needs_is_there_or_made(name):
    for path in STAGES[name]["deps"]:
        assert "${" not in path
        assert any(f"{made}/".startswith(f"{path}/") for made in MADE) or (ROOT / path).exists(), path
    assert not any("${" in path for path in outputs(STAGES[name]))


def test_no_output_is_made_twice():
    assert len(MADE) == len(set(MADE))


@pytest.mark.parametrize("name", [name for name in STAGES if name != "report"])
def test_a_stage_runs_a_notebook_it_depends_on(name):
    """`python -m deconvnet.pipeline.run_notebook NOTEBOOK OUTPUT [-p NAME VALUE]`: an edit of the notebook must run the stage again."""
    python, _, module, notebook, output, *parameters = STAGES[name]["cmd"].split()
    assert (python, module) == ("python", "deconvnet.pipeline.run_notebook")
    assert f"notebooks/{notebook}.ipynb" in STAGES[name]["deps"]
    assert output in STAGES[name]["outs"]
    (cell,) = (
        cell
        for cell in nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
        if "parameters" in cell.metadata.get("tags", [])
    )
    if parameters:
        assert f"{parameters[1]} = " in cell.source


@pytest.mark.parametrize("name", STAGES)
def test_stages_name_parameters_that_exist(name):
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key in STAGES[name]["params"]:
        reduce(dict.__getitem__, key.split("."), settings)


def test_every_notebook_is_run_by_some_stage():
    run = {stage["cmd"].split()[3] for name, stage in STAGES.items() if name != "report"}
    (extra,) = re.findall(r"deconvnet\.run (\w+) ", (ROOT / "ablations" / "dvc.yaml").read_text())
    assert run | {extra, "explore"} == {path.stem for path in NOTEBOOKS}  # explore is for people

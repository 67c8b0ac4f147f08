"""Notebooks: executed copies do not vary from run to run, and sources are canonical."""

import json
from copy import deepcopy

import nbformat
import pytest
from conftest import call
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill.exceptions import PapermillExecutionError

from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.pipeline import run_notebook
from deconvnet.pipeline.run_notebook import canonical_text, stable_copy

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


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


# Sources


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_canonical(path):
    text = path.read_text()
    assert text == canonical_text(nbformat.reads(text, as_version=4)), "make lint FIX=1"
    nbformat.validate(nbformat.reads(text, as_version=4))


def test_an_executed_notebook_becomes_canonical():
    text = canonical_text(executed())
    notebook = json.loads(text)
    assert notebook["metadata"] == {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    assert [cell["id"] for cell in notebook["cells"]] == ["cell-00", "cell-01"]
    assert notebook["cells"][1]["metadata"] == {"tags": ["parameters"]}
    assert (notebook["cells"][1]["outputs"], notebook["cells"][1]["execution_count"]) == ([], None)
    assert text == json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_thin(path):
    """Cells of at most 15 lines besides imports, and one cell of parameters: logic behind results is in src/."""
    cells = nbformat.read(path, as_version=4).cells
    for cell in (cell for cell in cells if cell.cell_type == "code"):
        assert sum(not line.startswith(("from ", "import ")) for line in cell.source.splitlines()) <= 15
    assert [cell.metadata.get("tags", []) for cell in cells].count(["parameters"]) == 1


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
    assert "validate.require(paths.VOC, voc.SPLITS)" in first


# Lack of memory

SPENT = [
    ("MemoryError", ""),
    ("_ArrayMemoryError", "Unable to allocate 7.45 GiB for an array"),
    ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
    ("RuntimeError", "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ("error", "OpenCV(4.14.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 400 bytes"),
    ("AcceleratorError", "CUDA error: out of memory"),
    ("TerminatedWorkerError", "A worker process managed by the executor was unexpectedly terminated."),
]


@pytest.mark.parametrize("spent", [DeadKernelError("Kernel died"), *SPENT], ids=str)
def test_lack_of_memory_is_explained_with_what_helps(monkeypatch, tmp_path, spent):
    """A killed kernel, and every way in which a library says it. Other errors keep their traceback."""

    def fail(*_):
        raise spent if isinstance(spent, Exception) else PapermillExecutionError(1, 1, "", *spent, [])

    monkeypatch.setattr(run_notebook, "run", fail)
    with pytest.raises(UserError, match="smaller batch_size, or with more micro_batches"):
        run_notebook.execute("train", tmp_path / "train.ipynb", {})


def test_another_error_is_no_lack_of_memory(monkeypatch, tmp_path):
    def fail(*_):
        raise PapermillExecutionError(1, 1, "", "KeyError", "'memory'", [])

    monkeypatch.setattr(run_notebook, "run", fail)
    with pytest.raises(SystemExit, match=r"train\.failed\.ipynb"):
        run_notebook.execute("train", tmp_path / "train.ipynb", {})


@pytest.mark.parametrize("trained", [True, False])
def test_the_network_is_built_by_hand(request, tmp_path, trained):
    """With the weights of a run, and in a clone with those that come with the project: what is built equals torch's and
    the package's, by the cells' asserts.
    """
    folder, path = request.getfixturevalue("smoke" if trained else "clone"), tmp_path / "network.ipynb"
    done = call(folder, "python", "-m", "deconvnet.pipeline.run_notebook", "network", str(path))
    assert done.returncode == 0, done.stderr[-2000:]
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "251,805,653 parameters" in printed
    assert "mean IoU, unpooling − bilinear" in printed


def test_the_tour_follows_one_image(smoke, tmp_path):
    """The first image with three objects, and another: what shows the image or its proposals is another picture. (The
    networks of the smoke run know nothing: what they predict may be alike.)
    """
    found = {}
    for given in ((), ("-p", "name", "val_00000")):
        path = tmp_path / f"tour{len(given)}.ipynb"
        done = call(smoke, "python", "-m", "deconvnet.pipeline.run_notebook", "tour", str(path), *given)
        assert done.returncode == 0, done.stderr[-2000:]
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        data = [output.get("data", {}) for cell in cells for output in cell.outputs]
        found[given] = [shown["image/png"] for shown in data if "image/png" in shown]
        assert len(found[given]) == 8
    differ = [a != b for a, b in zip(*found.values(), strict=True)]
    assert all([*differ[:3], *differ[-2:]])

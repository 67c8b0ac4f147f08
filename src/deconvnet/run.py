"""Runs one notebook as a DVC stage, with papermill, and writes an executed copy that is the same byte for byte each time.

    python -m deconvnet.run train reports/notebooks/train_stage1.ipynb -p stage 1

Progress bars of the notebook reach the terminal live. An error that the user can put right ends as one paragraph.
"""

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError

from deconvnet.paths import ROOT

VOLATILE = ("papermill", "execution", "widgets", "language_info")  # times, versions and paths of the machine


def stable(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leaves what a reader sees: no timing, no standard error (progress bars), one output per stream, counted cells."""
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        for key in VOLATILE:
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        shown = []
        for output in cell.outputs:
            if output.output_type == "stream":
                if output.name == "stderr":
                    continue
                if shown and shown[-1].output_type == "stream":
                    shown[-1].text += output.text
                    continue
            shown.append(output)
        cell.outputs = shown
    for key in VOLATILE:
        notebook.metadata.pop(key, None)
    return notebook


def die_with_parent() -> None:
    """If DVC is killed, this process and with it the kernel end too: no orphan writes beside its successor (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def run(notebook: Path, output: Path, parameters: dict) -> None:
    """Raises PapermillExecutionError if a cell fails; the copy up to there is then beside the output as *.failed.ipynb."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".failed.ipynb")
    executed = papermill.execute_notebook(
        notebook, partial, parameters, cwd=ROOT, progress_bar=False, stderr_file=sys.stderr, kernel_name="python3"
    )
    nbformat.write(stable(executed), output)
    partial.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", help="the notebook, without folder and ending")
    parser.add_argument("output", type=Path)
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    arguments = parser.parse_args()
    die_with_parent()
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's warning that no reader needs
    parameters = {name: yaml.safe_load(value) for name, value in arguments.parameters}
    try:
        run(ROOT / "notebooks" / f"{arguments.name}.ipynb", arguments.output, parameters)
    except PapermillExecutionError as error:
        if error.ename == "UserError":
            sys.exit(f"\n{arguments.name}: {error.evalue}\n")
        sys.exit(f"\n{error}\nThe notebook as far as it came: {arguments.output.with_suffix('.failed.ipynb')}\n")


if __name__ == "__main__":
    main()

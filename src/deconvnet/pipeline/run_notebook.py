"""Runs one notebook as a DVC stage, with papermill, and writes an executed copy that is the same for each run.

    python -m deconvnet.pipeline.run_notebook train reports/notebooks/train_stage1.ipynb -p stage 1
    python -m deconvnet.pipeline.run_notebook --tidy      removes outputs from the notebooks in notebooks/

Progress bars of the notebook reach the terminal live. An error that the user can mend ends as one paragraph.
"""

import argparse
import ctypes
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import papermill
import yaml
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from deconvnet.config import machine
from deconvnet.config.errors import (
    MEMORY_ADVICE,
    UserError,
    cannot_write_message,
    exit_on_user_error,
    is_memory_error,
)
from deconvnet.config.paths import ROOT
from deconvnet.pipeline.provenance import record_stage
from deconvnet.utils import resume

# The environment of a kernel, unless the user set it. The first two make glibc keep memory instead of returning large
# buffers to the system and fetching them again page by page: measured, that costs a training step on a CPU a sixth, and
# the CRF of a photograph a fifth.
KERNEL_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger's warning
    "OMP_NUM_THREADS": str(machine.threads()),
}
VOLATILE = ("papermill", "execution", "widgets", "language_info")  # times, versions and paths of the machine


def stable_copy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Keeps what a reader sees, one output per stream, counted cells: no timing, no addresses in memory, and no
    standard error (progress bars).
    """
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        for key in VOLATILE:
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.output_type == "stream":
                if output.name == "stderr":
                    continue
                if kept and kept[-1].output_type == "stream":
                    kept[-1].text += output.text
                    continue
            if plain := output.get("data", {}).get("text/plain"):
                output.data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", plain)  # an address in memory
            kept.append(output)
        cell.outputs = kept
    for key in VOLATILE:
        notebook.metadata.pop(key, None)
    return notebook


def canonical_text(notebook: nbformat.NotebookNode) -> str:
    """A notebook as git keeps it: no outputs, no counts, no metadata of the editor.

    nbstripout does not give the same bytes: it keeps the name of the kernel that the last editor used.
    """
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = stable_copy(notebook)
    notebook.metadata, notebook.nbformat, notebook.nbformat_minor = {"kernelspec": kernel}, 4, 5
    return nbformat.writes(notebook) + "\n"


def tidy_notebooks() -> None:
    """Puts every notebook of the project into its canonical form."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = canonical_text(nbformat.read(path, as_version=4))
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: outputs and metadata removed")


def die_with_parent() -> None:
    """If DVC is killed, this process ends too, and the kernel with it (Linux). The stage's lock would keep the results
    right without it, but the notebook would go on unseen, on all cores, until its end.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class ThisPython(AsyncKernelManager):
    """Starts the Python that runs this, whatever kernels named python3 the account or JUPYTER_PATH have."""

    kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        display_name="Python 3",
        language="python",
    )


def short_folder() -> str:
    """The folder of temporary files; another one if its name is too long for sockets, whose paths have 107 bytes."""
    usual = tempfile.gettempdir()
    for folder in (usual, "/tmp", "/dev/shm"):
        if len(os.fsencode(folder)) <= 60 and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise UserError(
        f"TMPDIR is {usual}, which is too long a name for sockets, and /tmp is closed: name another folder."
    )


def run(notebook: Path, output: Path, parameters: dict) -> set[str]:
    """Writes the executed copy; returns the devices on which networks ran, as `machine.note_device` names them.

    Raises PapermillExecutionError if a cell fails; the copy so far is *.failed.ipynb.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".failed.ipynb")
    with tempfile.TemporaryDirectory(dir=short_folder()) as own:  # of this kernel alone: TCP ports would be open to
        # other users, in the project two kernels would collide, and the account's folders may be closed
        kernel = {"transport": "ipc", "ip": f"{own}/kernel", "connection_file": f"{own}/kernel.json"}
        used = Path(own, "used")
        os.environ |= {
            "IPYTHONDIR": f"{own}/ipython",
            "TMPDIR": short_folder(),  # for the sockets of torch's workers, too
            "DECONVNET_USED": str(used),
        }
        executed = papermill.execute_notebook(
            notebook,
            partial,
            parameters,
            cwd=ROOT,
            kernel_name="python3",
            kernel_manager_class=ThisPython,
            progress_bar=False,
            stderr_file=sys.stderr,
            config=Config(KernelManager=kernel),
        )
        devices = set(used.read_text(encoding="utf-8").splitlines()) if used.is_file() else set()
    nbformat.write(stable_copy(executed), output)
    partial.unlink()
    return devices


def execute(name: str, output: Path, parameters: dict) -> set[str]:
    """Runs notebooks/<name>.ipynb; returns the devices that it used.

    Raises UserError; another error of a cell ends the program with its traceback.
    """
    for variable, value in KERNEL_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        return run(ROOT / "notebooks" / f"{name}.ipynb", output, parameters)
    except DeadKernelError:
        raise UserError(
            "The notebook's process was killed, by hand or for lack of memory. Run the same command again: training "
            f"resumes from the last checkpoint, other stages after their last finished image. {MEMORY_ADVICE}"
        ) from None
    except PapermillExecutionError as error:
        if error.ename == "UserError":
            raise UserError(error.evalue) from None
        if message := cannot_write_message(error.evalue):
            raise UserError(message) from None
        if is_memory_error(error.ename, error.evalue):
            raise UserError(f"Memory is lacking ({error.ename}). {MEMORY_ADVICE}") from None
        sys.exit(f"\n{error}\nThe notebook up to the error: {output.with_suffix('.failed.ipynb')}\n")


@exit_on_user_error()  # for what comes before and after the notebook
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="?", help="the notebook, without folder and ending")
    parser.add_argument("output", nargs="?", type=Path)
    parser.add_argument("--tidy", action="store_true")
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    arguments = parser.parse_args()
    if arguments.tidy:
        return tidy_notebooks()
    if arguments.output is None:
        parser.error("a notebook and an output are needed")
    die_with_parent()
    parameters = {name: yaml.safe_load(value) for name, value in arguments.parameters}
    started = time.monotonic()
    with exit_on_user_error(arguments.name):
        devices = execute(arguments.name, arguments.output, parameters)
    resume.clear()
    if "DVC_STAGE" in os.environ:  # a notebook run by hand is no part of the run that reports/ shows
        record_stage(arguments.output.stem, time.monotonic() - started, devices)


if __name__ == "__main__":
    main()

"""Runs one notebook as a DVC stage, with papermill, and writes an executed copy that is the same for each run.

    python -m deconvnet.run train reports/notebooks/train_stage1.ipynb -p stage 1
    python -m deconvnet.run --tidy        removes outputs from the notebooks in notebooks/

Progress bars of the notebook reach the terminal live. An error that the user can put right ends as one paragraph.
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

import yaml
from traitlets.config import Config

from deconvnet import checkpoints, machine, ranks
from deconvnet.errors import UserError, no_room, plainly
from deconvnet.imports import without
from deconvnet.paths import ROOT
from deconvnet.provenance import record_seconds

with without("rfc3987_syntax"):  # a grammar for addresses in JSON schemas, of which notebooks have none: seconds
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

# What a kernel starts with, unless the user set it. The first two keep memory: glibc otherwise returns large buffers to
# the system and fetches them again page by page, which costs a training step on a CPU about a sixth, and the CRF of a
# photograph a fifth.
ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger's warning that no reader needs
    "OMP_NUM_THREADS": str(machine.threads()),
}
# ipykernel may still answer the request to end when its sockets are closed, and may still be at its last cell's answer
# when the interrupt comes that goes before: tornado and ipykernel would log these as errors of ours.
QUIET_END = (
    "import atexit, logging; atexit.register(logging.disable); logging.getLogger('IPKernelApp').addFilter("
    "lambda record: 'KeyboardInterrupt caught' not in record.getMessage())"
)
VOLATILE = ("papermill", "execution", "widgets", "language_info")  # times, versions and paths of the machine


def stable(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leaves what a reader sees, one output per stream, counted cells: no timing, no addresses in memory, and no
    standard error (progress bars).
    """
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
            if plain := output.get("data", {}).get("text/plain"):
                output.data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", plain)  # an address in memory
            shown.append(output)
        cell.outputs = shown
    for key in VOLATILE:
        notebook.metadata.pop(key, None)
    return notebook


def canonical(notebook: nbformat.NotebookNode) -> str:
    """A notebook as git keeps it: no outputs, no counts, no metadata of whoever opened it last."""
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = stable(notebook)
    notebook.metadata, notebook.nbformat, notebook.nbformat_minor = {"kernelspec": kernel}, 4, 5
    return nbformat.writes(notebook) + "\n"


def tidy() -> None:
    """Puts every notebook of the project into its canonical form."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = canonical(nbformat.read(path, as_version=4))
        if text != path.read_text():
            path.write_text(text)
            print(f"{path.relative_to(ROOT)}: outputs and metadata removed")


def die_with_parent() -> None:
    """If DVC is killed, this process and with it the kernel end too: nothing works on unseen (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if launcher := os.environ.get(ranks.LAUNCHER):
            orphan = launcher != str(os.getppid())
        else:  # whoever adopts orphans has a session of its own
            orphan = "DVC_STAGE" in os.environ and os.getsid(os.getppid()) != os.getsid(0)
        if orphan:
            sys.exit("DVC has ended before its stage began.")


def run(notebook: Path, output: Path, parameters: dict) -> None:
    """Raises PapermillExecutionError if a cell fails; the copy as far as it came is then *.failed.ipynb."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".failed.ipynb")
    with tempfile.TemporaryDirectory() as sockets:  # of this kernel alone: neither TCP, which anyone could listen to,
        kernel = {"transport": "ipc", "ip": f"{sockets}/kernel"}  # nor files in the project, where two kernels collide
        executed = papermill.execute_notebook(
            notebook,
            partial,
            parameters,
            cwd=ROOT,
            kernel_name="python3",
            progress_bar=False,
            stderr_file=sys.stderr,
            config=Config(KernelManager=kernel),
            extra_arguments=[f"--IPKernelApp.exec_lines={QUIET_END}"],
        )
    nbformat.write(stable(executed), output)
    partial.unlink()


def execute(name: str, output: Path, parameters: dict) -> None:
    """Raises UserError; another error of a cell ends the program with its traceback."""
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        if machine.rank():
            help_to_train(notebook, parameters)
        else:
            run(notebook, output, parameters)
    except DeadKernelError:
        why = "The notebook's process was killed, by hand or because memory ran out."
        raise UserError(f"{why} {ranks.AGAIN}") from None
    except PapermillExecutionError as error:
        if error.ename == "UserError":
            raise UserError(error.evalue) from None
        if said := no_room(error.evalue):
            raise UserError(said) from None
        ranks.let_others_end_first()
        sys.exit(f"\n{error}\nThe notebook as far as it came: {output.with_suffix('.failed.ipynb')}\n")


def up_to_the_training(notebook: Path) -> nbformat.NotebookNode:
    """The part of a notebook that every rank runs."""
    read = nbformat.read(notebook, as_version=4)
    last = max(number for number, cell in enumerate(read.cells) if "training.train(" in cell.source)
    read.cells = read.cells[: last + 1]
    return read


def help_to_train(notebook: Path, parameters: dict) -> None:
    """What the ranks beside rank 0 do with it."""
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / notebook.name
        nbformat.write(up_to_the_training(notebook), part)
        run(part, Path(folder) / "executed.ipynb", parameters)


def take_part(name: str, output: Path, parameters: dict) -> None:
    """What a process does that `ranks.launch` has started: its last words are left for that to say."""
    try:
        with plainly(f"{name}: rank {machine.rank()} of {machine.world()}"):
            execute(name, output, parameters)
    except SystemExit as end:
        ranks.leave_words(str(end.code))
        sys.exit(1)


@plainly()  # for what comes before the notebook and after it
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="?", help="the notebook, without folder and ending")
    parser.add_argument("output", nargs="?", type=Path)
    parser.add_argument("--tidy", action="store_true")
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    arguments = parser.parse_args()
    if arguments.tidy:
        return tidy()
    if arguments.output is None:
        parser.error("a notebook and an output are needed")
    die_with_parent()
    parameters = {name: yaml.safe_load(value) for name, value in arguments.parameters}
    if machine.world() > 1:
        return take_part(arguments.name, arguments.output, parameters)
    checkpoints.hold("runner")
    started = time.monotonic()
    with plainly(arguments.name):
        if (count := ranks.number_for(arguments.name, parameters)) > 1:
            ranks.launch(count)
        else:
            execute(arguments.name, arguments.output, parameters)
    checkpoints.clear()
    if "DVC_STAGE" in os.environ:  # what is run by hand is no part of the run that reports/ shows
        record_seconds(arguments.output.stem, time.monotonic() - started)


if __name__ == "__main__":
    main()

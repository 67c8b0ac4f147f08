"""A stage runs its own folder's code by this environment's Python, whatever is installed, exported or configured."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import PROGRAMS, commit, git
from nbformat.v4 import new_code_cell, new_notebook

from deconvnet.config import environment
from deconvnet.config.paths import ROOT

STAGE = "python3 src/deconvnet -m deconvnet.pipeline.run_notebook work work.ipynb"
CELL = """
import json, multiprocessing, os, sys
import matplotlib
from deconvnet.config import machine, schema
from deconvnet.config.paths import ROOT
inline = matplotlib.get_backend()
said = {"code": getattr(schema, "SAYS", "as it was"), "file": schema.__file__, "root": str(ROOT), "python": sys.prefix,
        "utf8": sys.flags.utf8_mode, "rank": machine.rank(), "size": machine.world_size(), "backend": inline,
        "dpi": matplotlib.rcParams["figure.dpi"], "started": "started" in globals(), "optimize": sys.flags.optimize}
with multiprocessing.Pool(1) as pool:
    said["letters"] = pool.apply(chr, [8722])
json.dump(said, open("said.json", "w"))
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """A checkout with this code and one stage, whose notebook says what it runs in; beside another one."""
    folder = tmp_path / "a worktree"
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell(CELL)]), folder / "notebooks" / "work.ipynb")
    (folder / "dvc.yaml").write_text(
        f"stages: {{work: {{cmd: {STAGE}, deps: [src, notebooks], outs: [said.json: {{cache: false}}, work.ipynb]}}}}\n"
    )
    (folder / ".gitignore").write_text("__pycache__/\nreports/\n/work.ipynb\n")
    git(folder, "init", "-q")
    assert call(folder, "dvc", "init", "-q").returncode == 0
    say(folder, "first")
    return folder


def say(folder: Path, text: str) -> None:
    """Changes the code."""
    shutil.copy2(ROOT / "src" / "deconvnet" / "config" / "schema.py", folder / "src" / "deconvnet" / "config")
    with (folder / "src" / "deconvnet" / "config" / "schema.py").open("a") as file:
        file.write(f'\nSAYS = "{text}"\n')
    commit(folder, text)


def call(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs a program of this environment, whose package is another checkout's: the one that these tests are of."""
    environment = os.environ | {
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src"), **variables
    }  # fmt: skip
    environment.pop("DECONVNET_PYTHON", None)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)


def said(folder: Path, **variables: str) -> dict:
    done = call(folder, "dvc", "repro", "-f", **variables)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads((folder / "said.json").read_text())


@pytest.mark.slow
def test_dvc_repro_runs_the_code_of_its_own_folder(project):
    found = said(project)
    assert found["code"] == "first"
    assert Path(found["root"]) == project
    assert Path(found["file"]).is_relative_to(project)


@pytest.mark.slow
def test_an_experiment_in_the_queue_runs_the_code_that_it_holds(project):
    """The source is edited after `--queue`."""
    commit(project, "before")
    say(project, "queued")
    queued = call(project, "dvc", "exp", "run", "--queue", "-n", "one")
    assert queued.returncode == 0, queued.stderr
    say(project, "edited later")
    done = call(project, "dvc", "exp", "run", "--run-all")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (reference,) = git(project, "for-each-ref", "--format=%(refname)", "refs/exps/*/*/one").split()
    assert '"code": "queued"' in git(project, "show", f"{reference}:said.json")


SAYS = "from deconvnet.config import schema, paths; print(getattr(schema, 'SAYS', 'as it was'), paths.ROOT)"


@pytest.mark.slow
@pytest.mark.parametrize("below", [".", "notebooks"])
def test_python_in_a_project_imports_that_projects_code(project, below):
    assert call(project / below, "python", "-c", SAYS).stdout == f"first {project}\n"
    assert call(project.parent, "python", "-c", SAYS).stdout == f"as it was {ROOT}\n"


def spoil(home: Path) -> dict[str, str]:
    """An account, and exported variables, that would change each line of what the notebook says."""
    kernel = home / "jupyter" / "kernels" / "python3"
    startup = home / ".ipython" / "profile_default" / "startup"
    for folder in (kernel, startup, home / ".config" / "matplotlib", home / ("x" * 100)):
        folder.mkdir(parents=True)
    (kernel / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "another", "language": "python"}')
    (home / "start.py").write_text("started = 1")
    (startup / "start.py").write_text("started = 1")
    (home / ".config" / "matplotlib" / "matplotlibrc").write_text("figure.dpi: 17\n")
    return {
        "HOME": str(home),
        "JUPYTER_PATH": str(home / "jupyter"),
        "PYTHONSTARTUP": str(home / "start.py"),
        "PYTHONOPTIMIZE": "2",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
        "MPLBACKEND": "svg",
        "RANK": "3",
        "WORLD_SIZE": "8",
        "SLURM_NTASKS": "8",
        "SLURM_JOB_NAME": "train",
        "TMPDIR": str(home / ("x" * 100)),
    }


@pytest.mark.slow
def test_accounts_and_variables_change_nothing(project, tmp_path):
    plain = said(project)
    assert plain["backend"].endswith("inline")
    assert plain["utf8"] == 1
    assert plain["rank"] == 0
    assert plain["started"] is False
    assert plain["optimize"] == 0
    assert said(project, **spoil(tmp_path / "home")) == plain


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_an_account_without_a_usable_home(project):
    """As in a container. In /proc nobody can make a folder."""
    found = said(project, HOME="/proc")
    assert (found["code"], found["started"]) == ("first", False)


# Which Python


def venv(folder: Path, finished: bool = True) -> Path:
    program = folder / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    if finished:
        (folder / ".venv" / "installed").touch()
    return program


def test_the_venv_that_make_built_comes_first(tmp_path, monkeypatch):
    monkeypatch.delenv("DECONVNET_PYTHON", raising=False)
    inner = tmp_path / "runs" / "voc"
    assert environment.python(inner) == sys.executable
    program = venv(tmp_path, finished=False)
    assert environment.python(inner) == sys.executable
    (tmp_path / ".venv" / "installed").touch()
    assert environment.python(inner) == environment.python(tmp_path) == str(program)
    monkeypatch.setenv("DECONVNET_PYTHON", "/another/python")
    assert environment.python(inner) == "/another/python"


def test_a_venv_whose_python_is_gone_does_not_count(tmp_path, monkeypatch):
    monkeypatch.delenv("DECONVNET_PYTHON", raising=False)
    program = venv(tmp_path)
    program.unlink()
    program.symlink_to(tmp_path / "removed")
    assert environment.python(tmp_path) == sys.executable


def run_launcher(python: str, **variables: str) -> subprocess.CompletedProcess:
    command = [python, *(["-S"] if python == sys.executable else []), str(ROOT / "src" / "deconvnet"), "-c", "1"]
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DECONVNET_PYTHON")}
    return subprocess.run(command, env=kept | variables, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.skipif((ROOT / ".venv" / "installed").is_file(), reason="there is a .venv, which is used")
def test_a_python_without_the_packages_is_named():
    done = run_launcher(sys.executable)  # -S: without site-packages
    assert done.returncode == 1
    assert f"{sys.executable}, Python 3." in done.stderr
    assert "lacks this project's packages" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_named_python_that_is_not_there(tmp_path):
    done = run_launcher(sys.executable, DECONVNET_PYTHON=str(tmp_path / "python"))
    assert done.returncode == 1
    assert f"DECONVNET_PYTHON is {tmp_path / 'python'}" in done.stderr
    assert "Traceback" not in done.stderr


# Variables


def test_what_changes_results_is_dropped_and_the_rest_kept(tmp_path, monkeypatch):
    dropped = ("PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS", "JUPYTER_PATH", "RANK", "LOCAL_RANK", "WORLD_SIZE",
               "LOCAL_WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "PET_NNODES", "PIP_USER", "MPLBACKEND",
               "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")  # fmt: skip
    kept = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "DECONVNET_DEVICE", "PYTHONDONTWRITEBYTECODE", "HTTPS_PROXY",
            "PIP_INDEX_URL", "LD_LIBRARY_PATH", "DVC_STAGE", "MPLCONFIGDIR")  # fmt: skip
    for name in dropped + kept:
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("PATH", "/usr/bin")
    found = environment.environment(tmp_path, "/env/bin/python")
    assert not [name for name in dropped if name in found]
    assert {name: found[name] for name in kept} == dict.fromkeys(kept, "7")
    assert found["PATH"] == f"/env/bin{os.pathsep}/usr/bin"
    assert found["PYTHONPATH"] == str(tmp_path / "src")


def test_a_user_without_a_name_gets_one(tmp_path, monkeypatch):
    """As in a container that runs with any number as its user."""
    for name in ("HOME", "LOGNAME", "USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    found = environment.environment(tmp_path, sys.executable)
    assert found["LOGNAME"] == "3999999999"
    assert os.access(found["HOME"], os.W_OK)
    monkeypatch.setenv("HOME", "/mine")
    assert environment.environment(tmp_path, sys.executable)["HOME"] == "/mine"

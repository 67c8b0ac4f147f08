"""The whole pipeline, once, with the smoke profile in a fresh clone: several test files use its results."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deconvnet.config.paths import ROOT

if "PYTEST_XDIST_WORKER" in os.environ:  # two processes with threads for all cores each would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
PROGRAMS = Path(sys.executable).parent


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that use a clone or the smoke run are slow. The latter come first and, with `--dist loadgroup`, stay in one
    process; so do the other tests of a file.
    """
    for item in items:
        group = "smoke" if "smoke" in item.fixturenames else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
        if {"smoke", "clone"} & {*item.fixturenames}:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("xdist_group").args != ("smoke",))


def call(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs a program of this environment with the code of `folder`; returns its output and status."""
    environment = os.environ | {
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        **variables,
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
    )


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def commit(folder: Path, message: str) -> None:
    """Commits everything in `folder`."""
    git(folder, "add", "-A")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    git(folder, *identity, "commit", "-qm", message, "--allow-empty")


@pytest.fixture
def on_the_cpu(monkeypatch) -> None:
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")


@pytest.fixture(scope="session")
def clone(tmp_path_factory) -> Path:
    """A clone of the project as it is, uncommitted changes included."""
    folder = tmp_path_factory.mktemp("fresh") / "deconvnet"
    git(ROOT, "clone", "-q", str(ROOT), str(folder))
    changed = git(ROOT, "diff", "--name-only", "--no-renames", "HEAD")
    changed += git(ROOT, "ls-files", "-o", "--exclude-standard")
    for name in changed.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, folder / name)
        else:
            (folder / name).unlink()
    commit(folder, "as it is")
    return folder


@pytest.fixture(scope="session")
def smoke(clone) -> Path:
    """The folder of the smoke run, runs/smoke of the clone."""
    done = call(clone, "python", "-m", "deconvnet.pipeline.repro", "--profile", "smoke")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "| EDeconvNet+CRF |" in done.stdout
    return clone / "runs" / "smoke"

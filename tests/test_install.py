"""How `make` builds .venv, with stand-ins for Python and uname: nothing is installed here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deconvnet.config.paths import ROOT

PYTHON = f"""#!/bin/sh
# A Python of version $VERSION: programs given by -c see that version, `-m venv` copies this file, and every call of pip
# is a line of the log.
case "$1 $2" in
  "--version ") echo "Python $VERSION" ;;
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "venv" >> "$LOG" ;;
  "-m pip") echo "${{CYTHON_FORCE_REGEN:+regenerated }}$*" >> "$LOG" ;;
  *) exec {sys.executable} -c "import sys, sysconfig
sys.version_info = (*map(int, '$VERSION'.split('.')), 0, 'final', 0)
exec(sys.argv[1])" "$2" ;;
esac
"""


def make(folder: Path, version: str, **variables: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """`make .venv/installed` with a Python of that version; its result, and what was done by it so far."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        if not (folder / name).exists():
            shutil.copy2(ROOT / name, folder)
    programs, log = folder / "programs", folder / "log"
    programs.mkdir(exist_ok=True)
    for name, text in (("python", PYTHON), ("uname", "#!/bin/sh\necho ${SYSTEM:-Linux}\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    log.touch()
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "VERSION": version, "LOG": str(log)}
    command = ["make", ".venv/installed", f"PYTHON={programs / 'python'}", "DISK_GB=0"]
    done = subprocess.run(command, cwd=folder, env=environment | variables, capture_output=True, text=True, check=False)
    return done, log.read_text().splitlines()


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_pydensecrf_is_compiled_anew_where_its_own_code_does_not_compile(tmp_path, version):
    done, calls = make(tmp_path, version)
    assert done.returncode == 0, done.stderr
    anew = [call for call in calls if call.startswith("regenerated -m pip install")]
    assert len(calls) - len(anew) == 3  # the environment, the requirements, and the project
    assert [call.split()[-1] for call in anew] == ([] if version in ("3.11", "3.12") else ["pydensecrf2==1.1"])


@pytest.mark.parametrize(
    ("version", "system", "message"),
    [
        ("3.10", "Linux", "Python 3.11 to 3.14 is needed"),
        ("3.15", "Linux", "Python 3.11 to 3.14 is needed"),
        ("3.12", "Darwin", "Linux alone, not on Darwin"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_installed(tmp_path, version, system, message):
    done, calls = make(tmp_path, version, SYSTEM=system)
    assert done.returncode != 0
    assert message in done.stdout
    assert calls == []
    assert not (tmp_path / ".venv").exists()


def test_a_moved_or_copied_folder_builds_its_own_environment(tmp_path):
    first, moved, copied = (tmp_path / name for name in ("first", "moved", "copied"))
    first.mkdir()
    make(first, "3.11")
    assert make(first, "3.11")[1].count("venv") == 1  # the second call has nothing to do
    first.rename(moved)
    shutil.copytree(moved, copied)
    for folder in (moved, copied):
        (folder / ".venv" / "of the old folder").touch()
        done, calls = make(folder, "3.11")
        assert done.returncode == 0, done.stderr
        assert calls.count("venv") == 2
        assert "Building" in done.stdout
        assert not (folder / ".venv" / "of the old folder").exists()

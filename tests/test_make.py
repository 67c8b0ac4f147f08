"""The Makefile: what it says before anything is installed, in any folder, whatever is exported; and after a move."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import commit, git

from deconvnet.config.paths import ROOT

NAMES = ["a folder", "it's", "a$b", 'the "quoted" one', "Größe"]
EXPORTED = {"PROFILE": "/etc/profile", "DATA": "/data", "SEED": "x", "N": "x", "FIX": "1", "PYTHON": "/bin/false",
            "VENV": "/venv", "RUN": "/bin/false", "PYTHONHOME": "/usr", "PIP_USER": "1"}  # fmt: skip


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PIP_"))}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(
        command, cwd=folder, env=kept | variables, capture_output=True, encoding="utf-8", check=False
    )  # fmt: skip


@pytest.fixture
def unpacked(tmp_path) -> Path:
    """The project as an archive holds it, without .git, as far as make reads it."""
    folder = tmp_path / "unpacked"
    for name in ("conf", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder)
    (folder / "dvc.yaml").touch()
    (folder / "requirements.txt").write_text("pip\n")
    return folder


def refusal(folder: Path, *arguments: str, **variables: str) -> str:
    """What make says before it installs anything."""
    done = make(folder, *arguments, **variables)
    assert done.returncode != 0
    assert not (folder / ".venv").exists()
    assert "Building" not in done.stdout
    return done.stdout


PHOTOGRAPH = "JPEGImages/a.jpg"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["repro", "PROFILE=unheard-of"], "There is no profile unheard-of. Known: icons quick smoke"),
        (["ablations", "PROFILE="], "There is no profile"),
        (["verify", "PROFILE=$(nothing)"], "There is no profile $(nothing)"),
        (["repro", "DATA=/nowhere"], "DATA goes with PROFILE=voc: icons has data of its own."),
        (["repro", "PROFILE=voc"], "add DATA=/path/to/folder."),
        (["repro", "PROFILE=voc", "DATA=/nowhere"], "JPEGImages is missing there."),
        (["repro", "PROFILE=voc", 'DATA=/it\'s $HOME `x` "1"'], '/it\'s $HOME `x` "1" is no folder in VOC layout'),
        (["repro", "SEED=one"], "SEED and N are whole numbers."),
        (["seeds", "N=-1"], "SEED and N are whole numbers."),
    ],
)
def test_what_can_be_known_is_said_before_the_installation(unpacked, arguments, said):
    git(unpacked, "init", "-q")
    commit(unpacked, "all")
    assert said in refusal(unpacked, *arguments)


@pytest.mark.parametrize("target", ["test", "verify", "check-reports"])
def test_what_needs_a_repository_says_so_before_the_installation(unpacked, target):
    assert "no Git repository here, but an unpacked archive" in refusal(unpacked, target)
    git(unpacked, "init", "-q")
    assert "it has no commit" in refusal(unpacked, target)


def test_a_folder_of_any_name_is_given_on(unpacked, tmp_path):
    for name in NAMES:
        listed = tmp_path / name / PHOTOGRAPH
        listed.parent.mkdir(parents=True)
        listed.touch()
        command = make(unpacked, "-n", "repro", "PROFILE=voc", f"DATA={tmp_path / name}").stdout.splitlines()[-1]
        given = subprocess.run(["sh", "-c", command.replace(".venv/bin/python", "printf '%s\\n'")], check=True,
                               capture_output=True, encoding="utf-8").stdout.splitlines()  # fmt: skip
        assert given[-1] == str(tmp_path / name)


def test_exported_variables_are_not_those_of_make(unpacked):
    shown = make(unpacked, "-n", "repro", **EXPORTED).stdout
    assert shown == make(unpacked, "-n", "repro").stdout
    assert shown.splitlines()[-1].split() == [
        ".venv/bin/python", "src/deconvnet", "-m", "deconvnet.pipeline.repro", "--profile", "'icons'"
    ]  # fmt: skip
    studies = make(unpacked, "-n", "studies", ONLY="x", BUDGETS="2", SEEDS="9").stdout.splitlines()[-1].split()
    assert studies == [".venv/bin/python", "src/deconvnet", "-m", "deconvnet.pipeline.studies"]
    assert "--fix" not in make(unpacked, "-n", "lint", **EXPORTED).stdout
    assert "/bin/false" not in make(unpacked, "-n", "lab", **EXPORTED).stdout


@pytest.mark.parametrize("seed", ["0", "3"])
def test_a_given_seed_is_handed_on(unpacked, seed):
    """0 too, which is another run than that without a seed."""
    command = make(unpacked, "-n", "repro", f"SEED={seed}").stdout.splitlines()[-1].split()
    assert command[4:] == ["--profile", "'icons'", "--seed", seed]


def test_no_recipe_names_the_folder(unpacked):
    """So its name may have spaces, quotes and dollars."""
    text = (ROOT / "Makefile").read_text()
    assert "CURDIR" not in text
    assert "PWD" not in text
    targets = re.findall(r"^([a-z-]+):.*##", text, re.MULTILINE)
    assert {"repro", "lab", "lint"} <= {*targets}
    for target in targets:
        assert str(unpacked) not in make(unpacked, "-n", target).stdout, target

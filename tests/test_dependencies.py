"""Each stage of dvc.yaml names all code that its notebook imports, so that no result goes stale unseen."""

import ast
from functools import cache
from pathlib import Path

import nbformat
import pytest
from stages import STAGES, outputs

from deconvnet.config.paths import ROOT
from deconvnet.utils.resume import HARMLESS, is_harmless

SOURCE = ROOT / "src" / "deconvnet"
DRAWN = (  # by `report`
    "reports/figures", "reports/study_figures", "reports/tables", "reports/confusion", "reports/README.md",
    "reports/site",
)  # fmt: skip


def file_of(module: str) -> Path | None:
    """The file of a dotted module of this package; None for a package, whose __init__ holds a docstring alone."""
    path = SOURCE.parent / Path(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None


def imports(code: str) -> set[Path]:
    """The files of this package that code imports anywhere, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "deconvnet":
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            names += ["deconvnet.networks.deconvnet"] if names[-1] == "deconvnet.DeconvNet" else []
            found |= {path for path in map(file_of, names) if path}
        elif isinstance(node, ast.Import):
            found |= {path for path in map(file_of, (alias.name for alias in node.names)) if path}
    return found


@cache
def closure(path: Path) -> frozenset[Path]:
    """A file of the package and everything that it imports."""
    found, todo = set(), {path}
    while todo:
        current = todo.pop()
        found.add(current)
        todo |= imports(current.read_text()) - found
    return frozenset(found)


def code_of(stage: dict) -> str:
    """The code of a stage's notebook, or the import of the module that it runs."""
    python, code, _, module, *arguments = stage["cmd"].split()
    assert (python, code) == ("python3", "src/deconvnet")
    if module != "deconvnet.pipeline.run_notebook":
        package, _, name = module.rpartition(".")
        return f"from {package} import {name}"
    cells = nbformat.read(ROOT / "notebooks" / f"{arguments[0]}.ipynb", as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def uncovered(stage: dict) -> list[str]:
    """The modules behind a stage that it does not name and that can change its outputs."""
    used = set().union(*map(closure, imports(code_of(stage))))
    draws = any(path.startswith(DRAWN) for path in outputs(stage))
    found = []
    for path in used:
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        exempt = is_harmless(module) and not (draws and module.startswith("report."))
        if not exempt and not any(path.is_relative_to(ROOT / dep) for dep in stage["deps"]):
            found.append(module)
    return sorted(found)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_the_code_that_it_runs(name):
    assert uncovered(STAGES[name]) == []


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_no_code_that_it_does_not_run(name):
    used = set().union(*map(closure, imports(code_of(STAGES[name]))))
    for dep in STAGES[name]["deps"]:
        if dep.startswith("src/"):
            assert any(path.is_relative_to(ROOT / dep) for path in used), dep


@pytest.mark.parametrize("name", STAGES)
def test_the_test_sees_a_missing_line(name):
    """Without any one of its code dependencies, a stage is found to be incomplete."""
    stage = STAGES[name]
    for removed in (dep for dep in stage["deps"] if dep.startswith("src/")):
        assert uncovered(stage | {"deps": [dep for dep in stage["deps"] if dep != removed]}), removed


def test_exemptions_exist_and_have_reasons():
    for module, reason in HARMLESS.items():
        assert file_of(f"deconvnet.{module}") or (SOURCE / module).is_dir(), module
        assert reason


def test_packages_run_no_code_on_import():
    """The closure takes a package's __init__ as empty: it holds a docstring alone. In `predict` it names the Predictor,
    and no stage runs that.
    """
    used = {path for stage in STAGES.values() for file in imports(code_of(stage)) for path in closure(file)}
    assert not any(path.is_relative_to(SOURCE / "predict") for path in used)
    for path in set(SOURCE.glob("*/__init__.py")) - {SOURCE / "predict" / "__init__.py"}:
        (statement,) = ast.parse(path.read_text()).body
        assert isinstance(statement, ast.Expr), path

"""dvc.yaml: what a stage needs is there or made, nothing is made twice, and every notebook is run."""

from functools import reduce

import nbformat
import pytest
import yaml
from stages import ABLATIONS, DEFAULT, STAGES, outputs

from deconvnet.config.paths import ROOT

MADE = [path for stage in STAGES.values() for path in outputs(stage)]
WITH_NOTEBOOK = {name: s["cmd"].split()[4:] for name, s in STAGES.items() if "run_notebook" in s["cmd"]}


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_needs_is_there_or_made(name):
    for path in STAGES[name]["deps"]:
        assert "${" not in path
        assert any(f"{made}/".startswith(f"{path}/") for made in MADE) or (ROOT / path).exists(), path
    assert not any("${" in path for path in outputs(STAGES[name]))


def test_no_output_is_made_twice():
    assert len(MADE) == len(set(MADE))


@pytest.mark.parametrize("name", WITH_NOTEBOOK)
def test_a_stage_depends_on_its_notebook(name):
    """`... run_notebook NOTEBOOK OUTPUT [-p NAME VALUE]`: the parameter exists, and the executed copy is an output."""
    notebook, output, *parameters = WITH_NOTEBOOK[name]
    assert f"notebooks/{notebook}.ipynb" in STAGES[name]["deps"]
    assert output in outputs(STAGES[name])
    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
    (cell,) = (cell for cell in cells if "parameters" in cell.metadata.get("tags", []))
    if parameters:
        assert f"{parameters[1]} = " in cell.source


@pytest.mark.parametrize("name", STAGES)
def test_stages_name_parameters_that_exist(name):
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key in STAGES[name]["params"]:
        reduce(dict.__getitem__, key.split("."), settings)


def test_every_notebook_is_run_by_some_stage():
    run = {notebook for notebook, *_ in WITH_NOTEBOOK.values()}
    for_people = {"explore", "network", "tour"}
    assert run | for_people == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_the_experiment_depends_on_every_setting_but_how_results_are_shown():
    sections = {*yaml.safe_load((ROOT / "params.yaml").read_text())} - {"profile", "report"}
    assert {*DEFAULT["experiment"]["params"]} == sections


def test_only_experiments_of_the_same_settings_are_trained_for_ablations():
    assert all("reports/experiment.json" in stage["deps"] for stage in ABLATIONS.values())

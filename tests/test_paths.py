"""The project's root is found from inside a project, and from anywhere else."""

from pathlib import Path

from deconvnet.config import paths


def project(folder: Path) -> Path:
    (folder / "src" / "deconvnet").mkdir(parents=True)
    (folder / "dvc.yaml").touch()
    return folder


def test_the_nearest_project_above_wins(tmp_path):
    outer = project(tmp_path / "outer")
    inner = project(outer / "runs" / "voc")
    (inner / "notebooks").mkdir()
    assert paths.root(outer / "src") == outer
    assert paths.root(inner / "notebooks") == inner


def test_outside_of_every_project_it_is_the_packages_own_checkout(tmp_path):
    checkout = Path(__file__).parents[1]
    assert paths.root(tmp_path) == checkout
    (tmp_path / "dvc.yaml").touch()  # of another program's project
    assert paths.root(tmp_path) == checkout

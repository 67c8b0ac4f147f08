"""A fresh clone pulls what another machine has pushed, and runs nothing again."""

import shutil

from conftest import call, git

from deconvnet.config.paths import ROOT


def test_a_fresh_clone_pulls_and_runs_nothing(clone, smoke, tmp_path):
    """The smoke run as a project in git, a remote that is a folder, and a clone that shares neither data nor cache."""
    first, fresh, remote = tmp_path / "first", tmp_path / "fresh", tmp_path / "remote"
    shutil.copytree(smoke, first, ignore=shutil.ignore_patterns("tmp", "checkpoints", "__pycache__"))
    for name in (".gitignore", ".dvc/.gitignore", ".dvc/config"):
        shutil.copy2(ROOT / name, first / name)
    (first / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {clone / '.dvc' / 'cache'}\n")
    assert call(first, "dvc", "remote", "add", "--default", "store", str(remote)).returncode == 0
    git(first, "init", "-q")
    git(first, "add", "-A")
    git(first, "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qm", "the smoke run")
    pushed = call(first, "dvc", "push")
    assert pushed.returncode == 0, pushed.stderr[-2000:]

    git(tmp_path, "clone", "-q", str(first), str(fresh))
    assert [path.name for path in (fresh / "data").iterdir()] == ["source.json"]
    assert not (fresh / "models").exists()
    pulled = call(fresh, "dvc", "pull")
    assert pulled.returncode == 0, pulled.stderr[-2000:]
    repeated = call(fresh, "dvc", "repro")
    assert repeated.returncode == 0, repeated.stderr[-2000:]
    assert "Running stage" not in repeated.stdout
    assert "up to date" in repeated.stdout
    for name in (
        "models/deconvnet.safetensors",
        "data/predictions/edeconvnet_crf/val_00003.png",
        "reports/metrics.json",
    ):
        assert (fresh / name).read_bytes() == (smoke / name).read_bytes(), name

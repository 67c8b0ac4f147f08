"""Runs Python with this folder's code and the environment of config/environment.py. The stages of dvc.yaml begin so:

    python3 src/deconvnet -m deconvnet.pipeline.run_notebook data reports/notebooks/data.ipynb

A worktree, a second clone, an experiment in DVC's queue and a separate run thus run their own code, whichever checkout
the environment was installed from, and whatever way DVC was called.
"""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "src")  # instead of this file's folder

from deconvnet.config.environment import environment, python  # noqa: E402


def main():
    program = python(ROOT)
    if program == sys.executable and not importlib.util.find_spec("papermill"):
        sys.exit(
            f"\n{program}, Python {sys.version.split()[0]}, lacks this project's packages. `make` installs them in "
            f"{ROOT / '.venv'}; an environment made elsewhere must be activated first, or named by DECONVNET_PYTHON.\n"
        )
    try:
        os.execve(program, [program, *sys.argv[1:]], environment(ROOT, program))
    except OSError as error:
        sys.exit(f"\nDECONVNET_PYTHON is {program}, which cannot be run ({error.strerror}): unset it.\n")


if __name__ == "__main__":
    main()

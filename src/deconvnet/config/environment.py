"""The environment of everything that makes results: its Python, its code, and its variables, whatever the user's
account, the shell's start-up files, Jupyter or a cluster say.

`src/deconvnet/__main__.py` reads this before it is known which Python runs it. So it needs the standard library alone,
and the syntax of Python 3.7.
"""

import os
import sys
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

# Patterns of names: what would change by which packages something is computed, how, or what is drawn.
DROPPED = (
    "PYTHON*",  # PYTHONHOME, PYTHONSTARTUP (which Jupyter's kernels run), PYTHONOPTIMIZE, PYTHONWARNINGS, ...
    "JUPYTER_PATH",  # kernels and templates
    "MPLBACKEND",
    "*TF32*OVERRIDE",
    "BASH_ENV",
    "ENV",
    "PIP_USER",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    # Of a process that torchrun or a cluster's operator started, maybe the one from which this one descends. A stage
    # is no part of its training; launch.py runs torchrun for its own.
    "RANK",
    "*_RANK",
    "*WORLD_SIZE",
    "MASTER_*",
    "TORCHELASTIC_*",
    "PET_*",
    "SLURM_NTASKS",  # with it, Fabric takes the job's tasks for processes of the training
)
KEPT = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")  # where Python's own cache lies


def python(root):
    """The Python for the project in the folder `root`: DECONVNET_PYTHON; or that of the .venv which `make` has built
    there or above, for a separate run or an experiment of DVC; or this one, of conda for instance.
    """
    if os.environ.get("DECONVNET_PYTHON"):
        return os.environ["DECONVNET_PYTHON"]
    for folder in (root, *root.parents):
        program = folder / ".venv" / "bin" / "python"
        if (folder / ".venv" / "installed").is_file() and os.access(str(program), os.X_OK):
            return str(program)
    return sys.executable


def environment(root, program):
    """The variables for processes of the project in the folder `root`, as the Python `program` needs them."""
    kept = {name: value for name, value in os.environ.items() if not is_dropped(name)}
    defined = {
        "DECONVNET_PYTHON": program,
        "PATH": os.pathsep.join([str(Path(program).parent), kept.get("PATH", os.defpath)]),
        "PYTHONPATH": str(root / "src"),
        "PYTHONUTF8": "1",  # for files, names of files and the terminal, in any locale
        "PYTHONNOUSERSITE": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "MATPLOTLIBRC": os.devnull,  # matplotlib's defaults, instead of the account's
        "DVC_NO_ANALYTICS": "true",
    }
    return {**without_account(), **kept, **defined}


def is_dropped(name):
    return name not in KEPT and any(fnmatchcase(name, pattern) for pattern in DROPPED)


def without_account():
    """What a user without a name, as in a container, lacks: programs ask for it and would end in a traceback."""
    import pwd

    try:
        return {"HOME": pwd.getpwuid(os.getuid()).pw_dir}
    except KeyError:
        return {"HOME": tempfile.gettempdir(), "LOGNAME": str(os.getuid())}

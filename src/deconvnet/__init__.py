"""A replication of "Learning Deconvolution Network for Semantic Segmentation" (Noh, Hong, Han, ICCV 2015)."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deconvnet.networks.deconvnet import DeconvNet
    from deconvnet.networks.fcn import FCN8s

__all__ = ["DeconvNet", "FCN8s"]

# In another checkout than the one that this package was installed from, in a worktree or a separate run, all modules
# are those of the project around the working directory: config.paths finds data and settings there too.
for _folder in (Path.cwd(), *Path.cwd().parents):
    if (_folder / "dvc.yaml").is_file() and (_folder / "src" / "deconvnet" / "__init__.py").is_file():
        __path__ = [str(_folder / "src" / "deconvnet")]
        break


def __getattr__(name: str):
    """The networks, imported at first use: torch takes seconds, and many modules do without it."""
    if name == "DeconvNet":
        from deconvnet.networks.deconvnet import DeconvNet

        return DeconvNet
    if name == "FCN8s":
        from deconvnet.networks.fcn import FCN8s

        return FCN8s
    raise AttributeError(f"module 'deconvnet' has no attribute '{name}'")

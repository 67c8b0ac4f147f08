"""A replication of "Learning Deconvolution Network for Semantic Segmentation" (Noh, Hong, Han, ICCV 2015)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deconvnet.fcn import FCN8s
    from deconvnet.network import DeconvNet

__all__ = ["DeconvNet", "FCN8s"]


def __getattr__(name: str):
    """The networks, imported when they are asked for: torch takes seconds, and much here does without it."""
    if name == "DeconvNet":
        from deconvnet.network import DeconvNet

        return DeconvNet
    if name == "FCN8s":
        from deconvnet.fcn import FCN8s

        return FCN8s
    raise AttributeError(f"module 'deconvnet' has no attribute '{name}'")

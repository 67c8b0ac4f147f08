"""A replication of "Learning Deconvolution Network for Semantic Segmentation" (Noh, Hong, Han, ICCV 2015)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deconvnet.networks.deconvnet import DeconvNet
    from deconvnet.networks.fcn import FCN8s

__all__ = ["DeconvNet", "FCN8s"]


def __getattr__(name: str):
    """The networks, imported at first use: torch takes seconds, and many modules do without it."""
    if name == "DeconvNet":
        from deconvnet.networks.deconvnet import DeconvNet

        return DeconvNet
    if name == "FCN8s":
        from deconvnet.networks.fcn import FCN8s

        return FCN8s
    raise AttributeError(f"module 'deconvnet' has no attribute '{name}'")

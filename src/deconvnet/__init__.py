"""A replication of "Learning Deconvolution Network for Semantic Segmentation" (Noh, Hong, Han, ICCV 2015)."""

from deconvnet.fcn import FCN8s
from deconvnet.network import DeconvNet

__all__ = ["DeconvNet", "FCN8s"]

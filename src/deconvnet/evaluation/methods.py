"""The five methods of the paper's table 1, and the published numbers."""

from importlib.resources import files

import pandas as pd

METHODS = {
    "fcn8s": "FCN-8s",
    "deconvnet": "DeconvNet",
    "deconvnet_crf": "DeconvNet+CRF",
    "edeconvnet": "EDeconvNet",
    "edeconvnet_crf": "EDeconvNet+CRF",
}


def published() -> pd.DataFrame:
    """Per-class and mean IoU in % on VOC 2012 test, a row per method; `provenance` is the source of each number."""
    return pd.read_csv(files("deconvnet.evaluation") / "table1.csv", index_col="method")

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
    """Class and mean IoU in % on VOC 2012 test, a row per method; `source` says where each number of the row is from.

    A class whose number has no source is NaN. A mean without one is "unverified".
    """
    return pd.read_csv(files("deconvnet.evaluation") / "table1.csv", index_col="method")

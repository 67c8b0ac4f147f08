"""The five methods of the paper's table 1, what they are compared with, and the published numbers."""

from importlib.resources import files

import pandas as pd

METHODS = {
    "fcn8s": "FCN-8s",
    "deconvnet": "DeconvNet",
    "deconvnet_crf": "DeconvNet+CRF",
    "edeconvnet": "EDeconvNet",
    "edeconvnet_crf": "EDeconvNet+CRF",
}
CONTROLS = {  # beyond the paper: label maps that the claims compare with
    "fcn8s_crf": "FCN-8s+CRF",
    "deconvnet_crf_paper": "DeconvNet+CRF, the paper's kernel",
    "edeconvnet_crf_paper": "EDeconvNet+CRF, the paper's kernel",
    "edeconvnet_product": "EDeconvNet, product",
}


def published() -> pd.DataFrame:
    """Class and mean IoU in % on VOC 2012 test, a row per method; `source` says where each number of the row is from.

    A class whose number has no source is NaN. A mean without one is "unverified".
    """
    return pd.read_csv(files("deconvnet.evaluation") / "table1.csv", index_col="method")

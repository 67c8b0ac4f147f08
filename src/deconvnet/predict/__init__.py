"""Your own pictures: `python -m deconvnet.predict`, and from Python the Predictor. Imports all but explore and
pipeline; no stage runs it.
"""

from deconvnet.predict.predictor import Predictor

__all__ = ["Predictor"]

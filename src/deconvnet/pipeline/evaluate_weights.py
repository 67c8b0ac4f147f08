"""What `make evaluate` does: mean IoU of the five methods on val by a weights file, without training.

    python -m deconvnet.pipeline.evaluate_weights [FILE]        without FILE: the weights that come with the project

val is generated, so this is for networks that were trained on icon scenes. The numbers are compared with those that the
file's card has, of the run that trained them: float16 and the order of the sums may change the last digit.
"""

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deconvnet.config.errors import exit_on_user_error
from deconvnet.data import voc
from deconvnet.evaluation import metrics
from deconvnet.evaluation.methods import METHODS
from deconvnet.predict import scenes, trained
from deconvnet.predict.predictor import Predictor, method_probabilities

TOLERANCE = 0.001  # of mean IoU, a fraction: 0.1 points


def mean_ious(path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """{method: mean IoU} on val by the weights file, and by its card. The networks score each image once for all."""
    predict = Predictor("edeconvnet_crf", weights=path)
    root = scenes.generated_val(predict.settings)
    kernels = {method: predict.trained.kernel(method.removesuffix("_crf")) for method in METHODS}
    matrices = dict.fromkeys(METHODS, 0)
    for name in tqdm(voc.read_list(root, "val"), desc="val", unit="image"):
        image, truth = voc.read_image(root, name), voc.read_labels(root, name)
        scores = predict.scores(image)
        for method in METHODS:
            found = method_probabilities(method, image, scores, predict.settings, kernels[method])
            matrices[method] = matrices[method] + metrics.confusion(truth, found.argmax(axis=0))
    return {method: metrics.mean_iou(matrix) for method, matrix in matrices.items()}, predict.trained.card["mean_iou"]


def differing(found: dict[str, float], stated: dict[str, float]) -> list[str]:
    """The methods whose numbers are farther apart than TOLERANCE, rounding of the stated ones apart."""
    return [method for method in METHODS if not np.isclose(found[method], stated[method], rtol=0, atol=TOLERANCE)]


@exit_on_user_error()
def main() -> None:
    path = Path(*sys.argv[1:2] or [trained.SHIPPED])
    found, stated = mean_ious(path)
    print(f"Mean IoU on val, in %, by {path} and by the run that trained it:")
    for method, title in METHODS.items():
        print(f"  {title:15s} {100 * found[method]:5.1f} {100 * stated[method]:5.1f}")
    if wrong := differing(found, stated):
        sys.exit(f"More than {100 * TOLERANCE:.1f} points apart: {', '.join(METHODS[method] for method in wrong)}.")


if __name__ == "__main__":
    main()

"""The fully connected CRF (Krähenbühl, Koltun, NIPS 2011) by pydensecrf, with the release's constants (section 7)."""

from collections.abc import Iterator

import numpy as np
import pydensecrf.densecrf as densecrf
from joblib import Parallel, delayed
from pydensecrf.utils import unary_from_softmax
from tqdm import tqdm

from deconvnet import checkpoints, ensemble, machine, maps, voc
from deconvnet.files import digest, stamps
from deconvnet.metrics import confusion, mean_iou
from deconvnet.params import Crf, Kernel
from deconvnet.paths import VOC

SMALLEST = 1e-8  # a class that the network rules out stays possible: -log 0 is no energy


def unary(probabilities: np.ndarray) -> np.ndarray:
    """(21, H, W) probabilities → (21, H·W) finite energies -log p."""
    return unary_from_softmax(np.ascontiguousarray(probabilities, np.float32), clip=SMALLEST)


def refine(image: np.ndarray, probabilities: np.ndarray, kernel: Kernel, steps: int, normalise: bool) -> np.ndarray:
    """RGB uint8 (H, W, 3) and (21, H, W) probabilities → (21, H, W) probabilities after `steps` of mean field.

    `normalise` false reproduces the authors' wrapper; pydensecrf's own default is the symmetric normalisation.
    """
    classes, height, width = probabilities.shape
    rule = densecrf.NORMALIZE_SYMMETRIC if normalise else densecrf.NO_NORMALIZATION
    field = densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(unary(probabilities))
    if kernel.gaussian_weight:
        field.addPairwiseGaussian(sxy=kernel.gaussian_xy, compat=kernel.gaussian_weight, normalization=rule)
    if kernel.bilateral_weight:
        field.addPairwiseBilateral(
            sxy=kernel.bilateral_xy,
            srgb=kernel.bilateral_rgb,
            rgbim=np.ascontiguousarray(image),
            compat=kernel.bilateral_weight,
            normalization=rule,
        )
    return np.array(field.inference(steps)).reshape(classes, height, width)


def refined(method: str, names: list[str], kernel: Kernel, settings: Crf, rule: str) -> Iterator[np.ndarray]:
    """The refined probabilities of each image, in order, over all cores."""

    def one(name: str) -> np.ndarray:
        image, probabilities = voc.read_image(VOC, name), ensemble.of_method(method, name, rule)
        return refine(image, probabilities, kernel, settings.steps, settings.normalise)

    jobs = Parallel(n_jobs=machine.cores(), return_as="generator")(delayed(one)(name) for name in names)
    return iter(tqdm(jobs, total=len(names), desc=f"CRF of {method}", unit="image", mininterval=1))


def compare(method: str, names: list[str], settings: Crf, rule: str) -> list[float]:
    """The mean IoU on `names` under each candidate kernel."""
    truths = [voc.read_labels(VOC, name) for name in names]
    found = []
    for kernel in settings.candidates:
        labelled = refined(method, names, kernel, settings, rule)
        matrix = sum(confusion(truth, p.argmax(axis=0)) for truth, p in zip(truths, labelled, strict=True))
        found.append(mean_iou(matrix))
    return found


def predict_all(method: str, names: list[str], kernel: Kernel, settings: Crf, rule: str) -> None:
    """The label maps of `method` after the CRF, kept as <method>_crf; those of a killed run are kept."""
    after, sources = f"{method}_crf", ("deconvnet", "fcn8s") if method == "edeconvnet" else (method,)

    def made_from() -> dict[str, str]:
        return {
            "settings": digest(kernel.model_dump(), settings.steps, settings.normalise, rule),
            "images": digest(stamps(voc.image_path(VOC, name) for name in names)),
            "scores": digest(stamps(maps.scores_path(source, name) for source in sources for name in names)),
        }

    checkpoints.claim(f"CRF of {method}", made_from, {maps.prediction_path(after, name).parent for name in names})
    left = [name for name in names if not maps.prediction_path(after, name).is_file()]
    for name, probabilities in zip(left, refined(method, left, kernel, settings, rule), strict=True):
        maps.save_prediction(after, name, probabilities)

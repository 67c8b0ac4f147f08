"""The fully connected CRF (Krähenbühl, Koltun, NIPS 2011) by pydensecrf, with the release's constants (section 7)."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydensecrf.densecrf as densecrf
from PIL import Image
from pydensecrf.utils import unary_from_softmax

from deconvnet import checkpoints, ensemble, maps, parallel, voc
from deconvnet.files import digest, finished, stamps
from deconvnet.metrics import confusion, mean_iou
from deconvnet.params import Crf, Kernel
from deconvnet.paths import PREDICTIONS, VOC

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


def made_from(method: str, names: list[str], kernels: list[Kernel], settings: Crf, rule: str) -> dict[str, str]:
    sources = ("deconvnet", "fcn8s") if method == "edeconvnet" else (method,)
    return {
        "settings": digest([kernel.model_dump() for kernel in kernels], settings.steps, settings.normalise, rule),
        "images": digest(stamps(voc.image_path(VOC, name) for name in names)),
        "scores": digest(stamps(maps.scores_path(source, name) for source in sources for name in names)),
    }


def label(method: str, names: list[str], kernel: Kernel, settings: Crf, rule: str, folder: Path) -> None:
    """Writes <folder>/<name>.png, the label map after the CRF, for each image that has none there; over all cores or a
    cluster.
    """
    left = [name for name in names if not finished(folder / f"{name}.png")]

    def one(name: str) -> np.ndarray:
        image, probabilities = voc.read_image(VOC, name), ensemble.of_method(method, name, rule)
        refined = refine(image, probabilities, kernel, settings.steps, settings.normalise)
        return refined.argmax(axis=0).astype(np.uint8)  # a 1/84 of what would travel otherwise

    for name, labels in zip(left, parallel.over(one, left, f"CRF of {method}"), strict=True):
        voc.save_mask(folder / f"{name}.png", labels)


def compare(method: str, names: list[str], settings: Crf, rule: str) -> list[float]:
    """The mean IoU on `names` under each candidate kernel; the label maps of a killed run are kept."""
    place = checkpoints.claim(
        f"CRF's kernels for {method}", lambda: made_from(method, names, settings.candidates, settings, rule)
    )
    found = []
    with TemporaryDirectory() as elsewhere:
        for number, kernel in enumerate(settings.candidates):
            folder = (place or Path(elsewhere)) / f"{number}"
            label(method, names, kernel, settings, rule, folder)
            pairs = ((voc.read_labels(VOC, name), np.array(Image.open(folder / f"{name}.png"))) for name in names)
            found.append(mean_iou(sum(confusion(truth, labels) for truth, labels in pairs)))
    return found


def predict_all(method: str, names: list[str], kernel: Kernel, settings: Crf, rule: str) -> None:
    """The label maps of `method` after the CRF, kept as <method>_crf; those of a killed run are kept."""
    folder = PREDICTIONS / f"{method}_crf"
    checkpoints.claim(f"CRF of {method}", lambda: made_from(method, names, [kernel], settings, rule), [folder])
    label(method, names, kernel, settings, rule, folder)

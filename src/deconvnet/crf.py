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


def lattice(image: np.ndarray, classes: int, kernel: Kernel, normalise: bool) -> densecrf.DenseCRF2D:
    """The field over an RGB uint8 (H, W, 3) without unary energies: all of it that hangs on the image.

    `normalise` false reproduces the authors' wrapper; pydensecrf's own default is the symmetric normalisation.
    """
    height, width = image.shape[:2]
    rule = densecrf.NORMALIZE_SYMMETRIC if normalise else densecrf.NO_NORMALIZATION
    field = densecrf.DenseCRF2D(width, height, classes)
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
    return field


def mean_field(field: densecrf.DenseCRF2D, probabilities: np.ndarray, steps: int) -> np.ndarray:
    """(21, H, W) probabilities → (21, H, W) probabilities after `steps`; the field serves again for others."""
    field.setUnaryEnergy(unary(probabilities))
    return np.array(field.inference(steps)).reshape(probabilities.shape)


def refine(image: np.ndarray, probabilities: np.ndarray, kernel: Kernel, steps: int, normalise: bool) -> np.ndarray:
    """RGB uint8 (H, W, 3) and (21, H, W) probabilities → (21, H, W) probabilities after `steps` of mean field."""
    return mean_field(lattice(image, len(probabilities), kernel, normalise), probabilities, steps)


Wanted = dict[Path, tuple[str, Kernel]]  # folders of label maps: the method and the kernel of each


def made_from(names: list[str], wanted: Wanted, settings: Crf, rule: str) -> dict[str, str]:
    methods = {method for method, _ in wanted.values()}
    sources = {"deconvnet", "fcn8s"} if "edeconvnet" in methods else methods
    runs = [(folder.name, method, kernel.model_dump()) for folder, (method, kernel) in wanted.items()]
    return {
        "settings": digest(runs, settings.steps, settings.normalise, rule),
        "images": digest(stamps(voc.image_path(VOC, name) for name in names)),
        "scores": digest(stamps(maps.scores_path(source, name) for source in sorted(sources) for name in names)),
    }


def label(wanted: Wanted, names: list[str], settings: Crf, rule: str, what: str) -> None:
    """Writes <folder>/<name>.png, the label map after the CRF, for all folders of each image that lacks one; over all
    cores or a cluster. An image's scores are read once, and equal kernels that follow each other share a lattice.
    """
    left = [name for name in names if not all(finished(folder / f"{name}.png") for folder in wanted)]
    methods = {method for method, _ in wanted.values()}

    def one(name: str) -> list[np.ndarray]:
        image, found, before = voc.read_image(VOC, name), [], None
        probabilities = {method: ensemble.of_method(method, name, rule) for method in methods}
        for method, kernel in wanted.values():
            if kernel != before:
                field, before = lattice(image, len(probabilities[method]), kernel, settings.normalise), kernel
            refined = mean_field(field, probabilities[method], settings.steps)
            found.append(refined.argmax(axis=0).astype(np.uint8))  # a 1/84 of what would travel otherwise
        return found

    for name, found in zip(left, parallel.over(one, left, what), strict=True):
        for folder, labels in zip(wanted, found, strict=True):
            voc.save_mask(folder / f"{name}.png", labels)


def compare(methods: list[str], names: list[str], settings: Crf, rule: str) -> dict[str, list[float]]:
    """The mean IoU of each method on `names` under each candidate kernel; the label maps of a killed run are kept."""

    def wanted(folder: Path) -> Wanted:
        numbered = enumerate(settings.candidates)
        return {folder / f"{method}_{i}": (method, kernel) for i, kernel in numbered for method in methods}

    place = checkpoints.claim("CRF's kernels", lambda: made_from(names, wanted(Path()), settings, rule))
    found = {method: [] for method in methods}
    with TemporaryDirectory() as elsewhere:
        runs = wanted(place or Path(elsewhere))
        label(runs, names, settings, rule, "CRF's kernels")
        for folder, (method, _) in runs.items():
            pairs = ((voc.read_labels(VOC, name), np.array(Image.open(folder / f"{name}.png"))) for name in names)
            found[method].append(mean_iou(sum(confusion(truth, labels) for truth, labels in pairs)))
    return found


def predict_all(chosen: dict[str, Kernel], names: list[str], settings: Crf, rule: str) -> None:
    """The label maps of each method after the CRF by its kernel, kept as <method>_crf; a killed run's are kept."""
    wanted = {PREDICTIONS / f"{method}_crf": (method, kernel) for method, kernel in chosen.items()}
    checkpoints.claim("CRF", lambda: made_from(names, wanted, settings, rule), wanted)
    label(wanted, names, settings, rule, "CRF")

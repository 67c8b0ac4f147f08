"""The fully connected CRF (Krähenbühl, Koltun, NIPS 2011) by pydensecrf, with the release's constants (section 5.1)."""

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydensecrf.densecrf as densecrf
from PIL import Image
from pydensecrf.utils import unary_from_softmax

from deconvnet.config.paths import PREDICTIONS, VOC
from deconvnet.config.schema import Crf, Kernel
from deconvnet.data import voc
from deconvnet.images import store
from deconvnet.inference import ensemble
from deconvnet.utils import parallel, resume
from deconvnet.utils.files import file_stamps, fingerprint, is_complete

MIN_PROBABILITY = 1e-8  # a probability of 0 would have infinite energy


def unary(probabilities: np.ndarray) -> np.ndarray:
    """(21, H, W) probabilities → (21, H·W) finite energies -log p."""
    return unary_from_softmax(np.ascontiguousarray(probabilities, np.float32), clip=MIN_PROBABILITY)


def build_crf(image: np.ndarray, classes: int, kernel: Kernel, normalise: bool) -> densecrf.DenseCRF2D:
    """The CRF of an RGB uint8 (H, W, 3) image without unary energies: the pairwise terms depend on the image alone.

    `normalise` false reproduces the authors' wrapper; pydensecrf's own default is the symmetric normalisation.
    """
    height, width = image.shape[:2]
    rules = densecrf.NormalizationType
    rule = rules.NORMALIZE_SYMMETRIC if normalise else rules.NO_NORMALIZATION
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
    """(21, H, W) probabilities → (21, H, W) probabilities after `steps` of mean field; the field can be used again."""
    field.setUnaryEnergy(unary(probabilities))
    return np.array(field.inference(steps)).reshape(probabilities.shape)


def refine(image: np.ndarray, probabilities: np.ndarray, kernel: Kernel, steps: int, normalise: bool) -> np.ndarray:
    """RGB uint8 (H, W, 3) and (21, H, W) probabilities → (21, H, W) probabilities after `steps` of mean field."""
    return mean_field(build_crf(image, len(probabilities), kernel, normalise), probabilities, steps)


Outputs = dict[Path, tuple[str, Kernel]]  # {folder of label maps: (method, kernel)}


def crf_inputs(names: list[str], outputs: Outputs, settings: Crf, rule: str) -> dict[str, str]:
    """Fingerprints of what the label maps depend on, for `resume.resume_dir`."""
    methods = {method for method, _ in outputs.values()}
    sources = {"deconvnet", "fcn8s"} if "edeconvnet" in methods else methods
    runs = [(folder.name, method, kernel.model_dump()) for folder, (method, kernel) in outputs.items()]
    scores = (store.scores_path(source, name) for source in sorted(sources) for name in names)
    return {
        "settings": fingerprint(runs, settings.iterations, settings.normalise, rule),
        "images": fingerprint(file_stamps(voc.image_path(VOC, name) for name in names)),
        "scores": fingerprint(file_stamps(scores)),
    }


def write_label_maps(outputs: Outputs, names: list[str], settings: Crf, rule: str, desc: str) -> None:
    """Writes <folder>/<name>.png, the label map after the CRF, for all folders of each image that lacks one, on all
    cores or a cluster. An image's scores are read once; its pairwise terms are made once for each kernel, and its label
    map once for each method and kernel.
    """
    left = [name for name in names if not all(is_complete(folder / f"{name}.png") for folder in outputs)]
    methods = dict.fromkeys(method for method, _ in outputs.values())
    kernels = []
    for _, kernel in outputs.values():
        kernels += [] if kernel in kernels else [kernel]
    wanted = [(method, kernels.index(kernel)) for method, kernel in outputs.values()]

    def task(name: str) -> list[np.ndarray]:
        image, found = voc.read_image(VOC, name), {}
        probabilities = {method: ensemble.method_probabilities(method, name, rule) for method in methods}
        for number, kernel in enumerate(kernels):
            field = build_crf(image, len(next(iter(probabilities.values()))), kernel, settings.normalise)
            for method in dict.fromkeys(m for m, k in wanted if k == number):
                refined = mean_field(field, probabilities[method], settings.iterations)
                found[method, number] = refined.argmax(axis=0).astype(np.uint8)  # a worker returns 1/84 of the bytes
        return [found[pair] for pair in wanted]

    for name, label_maps in zip(left, parallel.process_map(task, left, desc), strict=True):
        for folder, labels in zip(outputs, label_maps, strict=True):
            voc.save_mask(folder / f"{name}.png", labels)


def compare_kernels(
    methods: list[str], names: list[str], settings: Crf, rule: str, measure: Callable[[Iterable], float]
) -> dict[str, list[float]]:
    """For each method, `measure` of its label maps under each candidate kernel; an interrupted call resumes.

    `measure` takes (ground truth, label map) pairs of all images and gives one number.
    """

    def outputs(folder: Path) -> Outputs:
        numbered = enumerate(settings.candidates)
        return {folder / f"{method}_{i}": (method, kernel) for i, kernel in numbered for method in methods}

    kept = resume.resume_dir("CRF kernels", lambda: crf_inputs(names, outputs(Path()), settings, rule))
    measured = {method: [] for method in methods}
    with TemporaryDirectory() as temporary:
        runs = outputs(kept or Path(temporary))
        write_label_maps(runs, names, settings, rule, "CRF kernels")
        for folder, (method, _) in runs.items():
            pairs = ((voc.read_labels(VOC, name), np.array(Image.open(folder / f"{name}.png"))) for name in names)
            measured[method].append(measure(pairs))
    return measured


def predict_all(chosen: dict[str, tuple[str, Kernel]], names: list[str], settings: Crf, rule: str) -> None:
    """Writes label maps after the CRF: {the name they get: (method, kernel)}; an interrupted call resumes."""
    outputs = {PREDICTIONS / title: pair for title, pair in chosen.items()}
    resume.resume_dir("CRF", lambda: crf_inputs(names, outputs, settings, rule), outputs)
    write_label_maps(outputs, names, settings, rule, "CRF")

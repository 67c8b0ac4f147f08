"""Segments your own photographs with the trained networks.

    python -m deconvnet.predict photo.jpg                     EDeconvNet+CRF, the paper's best
    python -m deconvnet.predict --method fcn8s --out . *.jpg

Writes <name>_mask.png (a palette PNG) and <name>_overlay.png beside each photograph, or into --out. A photograph with
more than 500 px on its longer side is segmented at that size; its mask and overlay have the photograph's own.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from deconvnet.config import params, paths
from deconvnet.config.errors import UserError, exit_on_user_error
from deconvnet.config.schema import Kernel
from deconvnet.data import classes, photograph, voc
from deconvnet.data.reading import FileError, printable
from deconvnet.evaluation.methods import METHODS
from deconvnet.inference import aggregate, crf, ensemble
from deconvnet.networks import build, weights
from deconvnet.networks.fuse import for_inference
from deconvnet.proposals import boundaries, edge_boxes, edges
from deconvnet.report import figures


class Predictor:
    """RGB uint8 (H, W, 3) → labels uint8 (H, W), by one of the five methods, from the weights in models/.

    A larger image than photograph.MAX_SIDE_PX is reduced to it, and its scores are enlarged.
    """

    def __init__(self, method: str):
        self.method, self.settings = method, params.load()
        self.fcn = self.deconvnet = None
        if method != "deconvnet" and method != "deconvnet_crf":
            self.fcn = for_inference(weights.load(build.make_fcn(self.settings), "fcn8s"))
        if method != "fcn8s":
            self.deconvnet = for_inference(weights.load(build.make_deconvnet(self.settings), "deconvnet"))
            if self.settings.proposals.edges == "learned":
                self.boundaries = weights.load(boundaries.BoundaryNet(self.settings.boundaries.widths), "boundaries")
        if method.endswith("_crf"):
            chosen = paths.REPORTS / "crf.json"
            if not chosen.is_file():
                raise UserError(f"{chosen} (the CRF kernels selected on dev) does not exist: run make repro first.")
            self.kernel = Kernel(
                **json.loads(chosen.read_text(encoding="utf-8"))[method.removesuffix("_crf")]["chosen"]
            )

    def boxes(self, image: np.ndarray) -> np.ndarray:
        s = self.settings
        if s.proposals.edges == "learned":
            probability = boundaries.boundary_probability(self.boundaries, image, s.boundaries.scales)
            return edge_boxes.find_boxes(edges.ridge_edges(probability), s.proposals)
        return edge_boxes.find_boxes(edges.image_edges(image, s.proposals.edges, s.proposals), s.proposals)

    def scores(self, image: np.ndarray) -> np.ndarray:
        s = self.settings
        if self.method == "fcn8s":
            return aggregate.score_image(self.fcn, image, s.inference.fcn_canvas).cpu().numpy()
        selected = aggregate.select_proposals(self.boxes(image), image.shape[:2], s.inference)
        options = (s.inference.batch_size, s.inference.antialias)
        scores = aggregate.score_proposals(self.deconvnet, image, selected, *options).cpu().numpy()
        if self.fcn is None:
            return ensemble.probabilities(scores)
        whole = aggregate.score_image(self.fcn, image, s.inference.fcn_canvas).cpu().numpy()
        return ensemble.combine(scores, whole, s.ensemble.rule)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        reduced = photograph.reduce(image)
        scores = self.scores(reduced)
        if self.method.endswith("_crf"):
            scores = crf.refine(reduced, scores, self.kernel, self.settings.crf.iterations, self.settings.crf.normalise)
        return label_map(scores, image.shape[:2])


def label_map(scores: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W): the class with the highest of (C, h, w) scores, enlarged to `shape`; the first wins a tie.

    One class after another: 21 maps of a photograph of 12 million pixels would take a gigabyte.
    """
    if scores.shape[1:] == shape:
        return scores.argmax(axis=0).astype(np.uint8)
    best, labels = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.uint8)
    for label, score in enumerate(np.float32(scores)):
        enlarged = cv2.resize(score, shape[::-1], interpolation=cv2.INTER_LINEAR)
        labels[enlarged > best] = label
        np.maximum(best, enlarged, out=best)
    return labels


def result_paths(photographs: list[Path], out: Path | None) -> dict[Path, tuple[Path, Path]]:
    """{photograph: its mask, its overlay}, each photograph once. Raises UserError if a result would replace another
    one, or a photograph.
    """
    given, results, source_of = {os.path.realpath(path) for path in photographs}, {}, {}
    for path in photographs:
        pair = tuple((out or path.parent) / f"{path.stem}_{what}.png" for what in ("mask", "overlay"))
        for target in pair:
            real = os.path.realpath(target)
            other = source_of.setdefault(real, path)
            if real in given:
                raise UserError(f"The result of {path} would replace {target}, which is given too: leave one out.")
            if os.path.realpath(other) != os.path.realpath(path):
                raise UserError(f"{other} and {path} have one result, {target}: rename one, or give it another --out.")
        results.setdefault(source_of[os.path.realpath(pair[0])], pair)
    return results


def segment(predict: Predictor, path: Path, mask: Path, over: Path) -> str:
    """Writes the two results of a photograph; returns a line about them. Raises UserError."""
    image = photograph.read(path)
    labels = predict(image)
    try:
        voc.save_mask(mask, labels)
        Image.fromarray(figures.overlay(image, labels)).save(over)
    except OSError as error:
        advice = "Free some space there, or name another --out"
        raise FileError(path, f"has a result that cannot be written ({error})", advice) from None
    (height, width), seen = labels.shape, photograph.reduce(image).shape
    size = "" if seen == image.shape else f"{width} x {height} px, segmented at {seen[1]} x {seen[0]}: "
    share, names = np.bincount(labels.ravel()) / labels.size, classes.current().names
    found = ", ".join(f"{names[k]} {share[k]:.0%}" for k in np.argsort(-share) if k and share[k])
    return f"{path}: {size}{found or 'background only'} -> {mask.name}, {over.name}"


@exit_on_user_error()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m deconvnet.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photographs", nargs="+", type=Path, metavar="photo.jpg")
    parser.add_argument("--method", choices=METHODS, default="edeconvnet_crf")
    parser.add_argument("--out", type=Path, help="folder of the results; default: beside each photograph")
    arguments = parser.parse_args()
    results, failed = result_paths(arguments.photographs, arguments.out), 0
    if arguments.out:
        try:
            arguments.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {arguments.out} cannot be made a folder ({error.strerror}).") from None
    predict = Predictor(arguments.method)
    sys.stdout.reconfigure(errors="backslashreplace")  # names may have letters that the terminal cannot show
    for path, (mask, over) in results.items():
        try:
            print(printable(segment(predict, path, mask, over)), flush=True)
        except UserError as error:  # the next one may be sound
            print(printable(error), file=sys.stderr)
            failed += 1
    if failed:
        sys.exit(f"{failed} of {len(results)} photographs could not be segmented.")


if __name__ == "__main__":
    main()

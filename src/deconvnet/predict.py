"""Segments your own photographs with the trained networks.

    python -m deconvnet.predict photo.jpg                     EDeconvNet+CRF, the paper's best
    python -m deconvnet.predict --method fcn8s --out . *.jpg

Writes <name>_mask.png (VOC's palette) and <name>_overlay.png beside each photograph, or into --out.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from deconvnet.config import params, paths
from deconvnet.config.errors import UserError
from deconvnet.config.schema import Kernel
from deconvnet.data import voc
from deconvnet.evaluation.methods import METHODS
from deconvnet.inference import aggregate, crf, ensemble
from deconvnet.networks import build, weights
from deconvnet.networks.fuse import for_inference
from deconvnet.proposals import boundaries, edge_boxes, edges
from deconvnet.report import figures


class Predictor:
    """RGB uint8 (H, W, 3) → labels uint8 (H, W), by one of the five methods, from the weights in models/."""

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
        scores = self.scores(image)
        if self.method.endswith("_crf"):
            scores = crf.refine(image, scores, self.kernel, self.settings.crf.iterations, self.settings.crf.normalise)
        return scores.argmax(axis=0).astype(np.uint8)


def read_photograph(path: Path) -> np.ndarray:
    """Any picture that Pillow reads, turned as its EXIF says: RGB uint8 (H, W, 3)."""
    try:
        with Image.open(path) as picture:
            return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path} is not a complete picture ({error}).") from None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deconvnet.predict", description=__doc__.split("\n")[0])
    parser.add_argument("photographs", nargs="+", type=Path, metavar="photo.jpg")
    parser.add_argument("--method", choices=METHODS, default="edeconvnet_crf")
    parser.add_argument("--out", type=Path, help="folder of the results; default: beside each photograph")
    arguments = parser.parse_args()
    try:
        predict = Predictor(arguments.method)
        for path in arguments.photographs:
            image = read_photograph(path)
            labels = predict(image)
            folder = arguments.out or path.parent
            folder.mkdir(parents=True, exist_ok=True)
            mask, over = (folder / f"{path.stem}_{what}.png" for what in ("mask", "overlay"))
            voc.save_mask(mask, labels)
            Image.fromarray(figures.overlay(image, labels)).save(over)
            share = np.bincount(labels.ravel(), minlength=21) / labels.size
            found = ", ".join(f"{voc.CLASSES[k]} {share[k]:.0%}" for k in np.argsort(-share) if k and share[k])
            print(f"{path}: {found or 'background only'} -> {mask.name}, {over.name}")
    except UserError as error:
        sys.exit(f"\n{error}\n")


if __name__ == "__main__":
    main()

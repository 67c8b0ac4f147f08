"""The trained networks as a function of one picture, by any of the five methods."""

from pathlib import Path

import cv2
import numpy as np

from deconvnet.config.errors import UserError
from deconvnet.config.schema import Kernel, Params
from deconvnet.data import photograph
from deconvnet.evaluation.methods import METHODS
from deconvnet.inference import aggregate, crf, ensemble
from deconvnet.networks import build
from deconvnet.networks.fuse import for_inference
from deconvnet.predict import trained
from deconvnet.proposals import boundaries, edge_boxes, edges


class Predictor:
    """RGB uint8 (H, W, 3) → labels uint8 (H, W), by one of the five methods.

    The networks are those that `trained.find` takes: of the weights file `weights` (a path, or an address with the
    file's `sha256`), of the run of `profile`, or else the project's own. A larger image than photograph.MAX_SIDE_PX is
    reduced to it, and its probabilities are enlarged. The device is DECONVNET_DEVICE's. Raises UserError.
    """

    def __init__(
        self,
        method: str = "edeconvnet_crf",
        *,
        weights: str | Path | None = None,
        sha256: str | None = None,
        profile: str | None = None,
    ):
        if method not in METHODS:
            raise UserError(f"There is no method '{method}'. Known: {', '.join(METHODS)}.")
        self.method, base = method, method.removesuffix("_crf")
        self.trained = trained.find(weights, sha256, profile)
        self.settings, self.classes = s, own = self.trained.settings, self.trained.classes()
        self.fcn = self.deconvnet = self.kernel = None
        if base != "deconvnet":
            self.fcn = for_inference(self.trained.load(build.make_fcn(s, len(own)), "fcn8s"))
        if base != "fcn8s":
            self.deconvnet = for_inference(self.trained.load(build.make_deconvnet(s, len(own)), "deconvnet"))
            self.boundaries = self.trained.load(boundaries.BoundaryNet(s.boundaries.widths), "boundaries")
        if base != method:
            self.kernel = self.trained.kernel(base)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return label_map(self.probabilities(image), image.shape[:2])

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 (classes, h, w), of the image as it is or, if it is larger, reduced."""
        image = photograph.reduce(image)
        return method_probabilities(self.method, image, self.scores(image), self.settings, self.kernel)

    def scores(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """The raw scores (classes, H, W) of the networks that the method needs: "deconvnet", "fcn8s" or both."""
        s, found = self.settings.inference, {}
        if self.deconvnet is not None:
            selected = aggregate.select_proposals(self.boxes(image), image.shape[:2], s)
            scores = aggregate.score_proposals(self.deconvnet, image, selected, s.batch_size, s.antialias)
            found["deconvnet"] = scores.float().cpu().numpy()
        if self.fcn is not None:
            found["fcn8s"] = aggregate.score_image(self.fcn, image, s.fcn_canvas).cpu().numpy()
        return found

    def boxes(self, image: np.ndarray) -> np.ndarray:
        """Edge Boxes' proposals, float32 (N, 5): x1, y1, x2, y2, objectness, best first."""
        return edge_boxes.find_boxes(self.edges(image), self.settings.proposals)

    def edges(self, image: np.ndarray) -> edges.Edges:
        s = self.settings.proposals
        if s.edges == "learned":
            return edges.ridge_edges(self.boundary_map(image))
        return edges.image_edges(image, s.edges, s)

    def boundary_map(self, image: np.ndarray) -> np.ndarray:
        """The boundary detector's map, float32 (H, W) in 0–1, in 255 steps as a run keeps it on disk."""
        found = boundaries.boundary_probability(self.boundaries, image, self.settings.boundaries.scales)
        return (255 * found).round().astype(np.float32) / 255


def method_probabilities(
    method: str, image: np.ndarray, scores: dict[str, np.ndarray], settings: Params, kernel: Kernel | None
) -> np.ndarray:
    """A method's class probabilities (classes, H, W) from its networks' raw scores; `kernel` is for the CRF."""
    base = method.removesuffix("_crf")
    if base == "edeconvnet":
        found = ensemble.combine(scores["deconvnet"], scores["fcn8s"], settings.ensemble.rule)
    else:
        found = ensemble.probabilities(scores[base])
    return (
        found if base == method else crf.refine(image, found, kernel, settings.crf.iterations, settings.crf.normalise)
    )


def label_map(scores: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W): the class with the highest of (C, h, w) scores, enlarged to `shape`; the first wins a tie.

    One class after another: all 21 maps of a photograph of 12 million pixels would take a gigabyte.
    """
    if scores.shape[1:] == shape:
        return scores.argmax(axis=0).astype(np.uint8)
    best, labels = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.uint8)
    for label, score in enumerate(np.float32(scores)):
        enlarged = cv2.resize(score, shape[::-1], interpolation=cv2.INTER_LINEAR)
        labels[enlarged > best] = label
        np.maximum(best, enlarged, out=best)
    return labels

"""Object proposals: Edge Boxes (Zitnick, Dollár, ECCV 2014) as OpenCV ports them, section 5 of the paper.

The edges come from OpenCV's structured forest when its model file is at hand, else from the image gradient.
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from torchvision.ops import box_iou
from tqdm import tqdm

from deconvnet import machine, voc
from deconvnet.errors import UserError
from deconvnet.params import Proposals
from deconvnet.paths import PROPOSALS


def gradient_edges(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sobel edges of an RGB image in Lab, thinned across the edge: magnitude in 0–1 and orientation in 0–π, float32.

    The thinning is non-maximum suppression between the two bilinearly read neighbours along the gradient; without it
    Edge Boxes takes several times as long and groups edges badly.
    """
    lab = cv2.GaussianBlur(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), (0, 0), 1)
    dx, dy = cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)
    strongest = (dx**2 + dy**2).argmax(axis=2)[..., None]  # the channel with the steepest gradient speaks for the pixel
    dx, dy = (np.take_along_axis(d, strongest, axis=2)[..., 0] for d in (dx, dy))
    magnitude = cv2.magnitude(dx, dy)
    x, y = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in magnitude.shape[::-1]))
    ux, uy = dx / (magnitude + 1e-6), dy / (magnitude + 1e-6)
    ahead, behind = (cv2.remap(magnitude, x + s * ux, y + s * uy, cv2.INTER_LINEAR) for s in (1, -1))
    thin = np.where((magnitude >= ahead) & (magnitude > behind), magnitude, 0)
    orientation = np.arctan2(dy, dx) % np.pi
    thin = thin / max(thin.max(), 1e-6)
    # OpenCV's last bit depends on how the arrays lie in memory; a box's score would change from run to run with it.
    return thin.round(4).astype(np.float32), orientation.round(4).astype(np.float32)


class EdgeBoxes:
    """RGB image → (N, 5) float32: x1, y1, x2, y2, objectness, best first, at most `settings.boxes`; N may be 0."""

    def __init__(self, settings: Proposals):
        self.settings = settings
        self.forest = None
        if settings.forest is not None:
            if not Path(settings.forest).is_file():
                raise UserError(
                    f"proposals.forest: {settings.forest} does not exist; null takes gradient edges instead."
                )
            self.forest = cv2.ximgproc.createStructuredEdgeDetection(settings.forest)

    @property
    def edge_source(self) -> str:
        return "gradient edges" if self.forest is None else "structured forest"

    def edges(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.forest is None:
            return gradient_edges(image)
        edges = self.forest.detectEdges(image.astype(np.float32) / 255)
        orientation = self.forest.computeOrientation(edges)
        return self.forest.edgesNms(edges, orientation), orientation

    def __call__(self, image: np.ndarray) -> np.ndarray:
        # OpenCV's other defaults are those of the original code; minBoxArea is not (1,000 px²).
        s = self.settings
        finder = cv2.ximgproc.createEdgeBoxes(alpha=s.step, beta=s.overlap, maxBoxes=s.boxes, minBoxArea=s.min_area)
        boxes, scores = finder.getBoundingBoxes(*self.edges(image))
        if len(boxes) == 0:
            return np.zeros((0, 5), np.float32)
        boxes = np.asarray(boxes, np.float32)
        boxes[:, 2:] += boxes[:, :2]
        return np.hstack([boxes, np.asarray(scores, np.float32).reshape(-1, 1)])


def propose(folder: Path, names: list[str], settings: Proposals) -> dict[str, np.ndarray]:
    """Proposals of every image, over all cores."""

    def one(name: str) -> np.ndarray:
        return EdgeBoxes(settings)(voc.read_image(folder, name))

    jobs = Parallel(n_jobs=machine.cores(), return_as="generator")(delayed(one)(name) for name in names)
    return dict(zip(names, tqdm(jobs, total=len(names), desc="Edge Boxes", unit="image"), strict=True))


def save_proposals(proposals: dict[str, np.ndarray], split: str) -> None:
    PROPOSALS.mkdir(parents=True, exist_ok=True)
    np.savez(PROPOSALS / f"{split}.npz", **proposals)


def load_proposals(split: str) -> dict[str, np.ndarray]:
    with np.load(PROPOSALS / f"{split}.npz", allow_pickle=False) as stored:
        return dict(stored)


def overlaps(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(N, M) intersection over union of (N, 4) and (M, 4) boxes."""
    first, second = (torch.as_tensor(np.asarray(b, np.float32).reshape(-1, 4)) for b in (boxes, objects))
    return box_iou(first, second).numpy()


def recall(proposals: dict[str, np.ndarray], objects: pd.DataFrame, counts: list[int], iou: float = 0.5) -> pd.Series:
    """The share of objects that one of the first n proposals overlaps by at least `iou`, for each n of `counts`."""
    rank = []  # of the first proposal that finds the object
    for name, group in objects.groupby("image"):
        hits = overlaps(proposals[name][:, :4], group[["x1", "y1", "x2", "y2"]].to_numpy()) >= iou
        rank += [np.flatnonzero(column)[0] if column.any() else np.inf for column in hits.T]
    return pd.Series({n: float(np.mean(np.array(rank) < n)) for n in counts}, name="recall")

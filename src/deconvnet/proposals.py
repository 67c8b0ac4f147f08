"""Object proposals: Edge Boxes (Zitnick, Dollár, ECCV 2014) as OpenCV ports them, section 5 of the paper.

The edges come from one of three sources: the network of boundaries.py, OpenCV's structured forest (as the paper's), or
the image gradient. Each gives thin lines with their orientation, from which Edge Boxes makes its boxes.
"""

import gzip
import io
import zlib
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from deconvnet import checkpoints, fetch, maps, parallel, voc
from deconvnet.errors import UserError
from deconvnet.files import digest, finished, stamps, write_whole
from deconvnet.params import Proposals
from deconvnet.paths import PROPOSALS

UNPACKED = 2**31  # bytes; no forest is as large
SOURCES = {"learned": "learned boundaries", "forest": "structured forest", "gradient": "gradient edges"}
Edges = tuple[np.ndarray, np.ndarray]  # float32 (H, W): strength in 0–1, thinned to lines; direction across in 0–π


def thin(strength: np.ndarray, across: np.ndarray) -> Edges:
    """Keeps what is strongest between its two neighbours, bilinearly read, in the direction `across` (radians).

    Without it Edge Boxes takes several times as long and groups edges badly.
    """
    x, y = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in strength.shape[::-1]))
    dx, dy = np.cos(across).astype(np.float32), np.sin(across).astype(np.float32)
    ahead, behind = (cv2.remap(strength, x + s * dx, y + s * dy, cv2.INTER_LINEAR) for s in (1, -1))
    lines = np.where((strength >= ahead) & (strength > behind), strength, 0)
    lines = lines / max(lines.max(), 1e-6)
    # OpenCV's last bit depends on how the arrays lie in memory; a box's score would change from run to run with it.
    return lines.round(4).astype(np.float32), (across % np.pi).round(4).astype(np.float32)


def gradient_edges(image: np.ndarray) -> Edges:
    """Sobel edges of an RGB image in Lab; the channel with the steepest gradient speaks for the pixel."""
    lab = cv2.GaussianBlur(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), (0, 0), 1)
    dx, dy = cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)
    steepest = (dx**2 + dy**2).argmax(axis=2)[..., None]
    dx, dy = (np.take_along_axis(d, steepest, axis=2)[..., 0] for d in (dx, dy))
    return thin(cv2.magnitude(dx, dy), np.arctan2(dy, dx))


def ridge_edges(probability: np.ndarray) -> Edges:
    """The ridges of a map of contours, float32 (H, W) in 0–1: across them it curves down the most."""
    smooth = cv2.GaussianBlur(probability, (0, 0), 1)
    xx, xy, yy = (cv2.Sobel(smooth, cv2.CV_32F, dx, dy) for dx, dy in ((2, 0), (1, 1), (0, 2)))
    return thin(probability, np.arctan2(2 * xy, xx - yy) / 2 + np.pi / 2)  # the Hessian's axis of the lower eigenvalue


@cache  # it takes a second
def load_forest(path: str) -> cv2.ximgproc.StructuredEdgeDetection:
    try:
        return cv2.ximgproc.createStructuredEdgeDetection(path)
    except cv2.error as error:
        raise UserError(
            f"proposals.forest: {path} is not a structured forest that OpenCV reads ({error.err})."
        ) from None


def forest_edges(image: np.ndarray, forest: str) -> Edges:
    """Edges of an RGB image by the structured forest in the file `forest`."""
    detector = load_forest(forest)
    strength = detector.detectEdges(image.astype(np.float32) / 255)
    across = detector.computeOrientation(strength)
    return detector.edgesNms(strength, across), across


def edge_boxes(edges: Edges, settings: Proposals) -> np.ndarray:
    """(N, 5) float32: x1, y1, x2, y2, objectness, best first, at most `settings.boxes`; N may be 0."""
    # OpenCV's other defaults are those of the original code; minBoxArea is not (1,000 px²).
    s = settings
    finder = cv2.ximgproc.createEdgeBoxes(alpha=s.step, beta=s.overlap, maxBoxes=s.boxes, minBoxArea=s.min_area)
    found, scores = finder.getBoundingBoxes(*edges)
    if len(found) == 0:
        return np.zeros((0, 5), np.float32)
    found = np.asarray(found, np.float32)
    found[:, 2:] += found[:, :2]
    return np.hstack([found, np.asarray(scores, np.float32).reshape(-1, 1)])


def fetch_forest(settings: Proposals, folder: Path) -> Path:
    """Downloads the forest's file from the address `settings.forest` into `folder`, unless it lies there already.

    It is used only if it is whole: its gzip checksum is right, and its SHA-256 is the settings' or else the one that
    was recorded beside it at its first use. Raises UserError.
    """
    path = folder / settings.forest.rsplit("/", 1)[1]
    try:
        fetch.download(settings.forest, path, lambda file: _not_whole(file, settings.forest_sha256))
    except UserError as error:
        instead = "Without it: proposals.edges: learned and proposals.forest: null."
        raise UserError(f"{error} {instead}") from None
    return path


def _not_whole(path: Path, sha256: str | None) -> str | None:
    """What is wrong with a gzip file that should have this SHA-256, if one is known."""
    unpacked = 0
    try:
        with gzip.open(path) as packed:
            while part := packed.read(fetch.PART):
                unpacked += len(part)
                if unpacked > UNPACKED:
                    return f"it unpacks to more than {UNPACKED >> 20} MiB"
    except (OSError, EOFError, zlib.error) as error:
        return f"it is not a whole gzip file ({error})"
    found = fetch.checksum(path, "sha256")
    return f"its SHA-256 is {found} and should be {sha256}" if sha256 not in (None, found) else None


def image_edges(image: np.ndarray, source: str, settings: Proposals) -> Edges:
    """Edges of an RGB image by those of SOURCES that need no training."""
    return forest_edges(image, settings.forest) if source == "forest" else gradient_edges(image)


def propose(folder: Path, names: list[str], settings: Proposals, source: str) -> dict[str, np.ndarray]:
    """Proposals of every image, over all cores or a cluster; those that a killed run has found are kept."""
    read = [maps.boundaries_path(n) if source == "learned" else voc.image_path(folder, n) for n in names]

    def made_from() -> dict[str, str]:
        return {"settings": digest(settings.model_dump(mode="json"), source), "images": digest(stamps(read))}

    place = checkpoints.claim("Edge Boxes", made_from)

    def one(name: str) -> np.ndarray:
        kept = place / f"{name}.npy" if place else None
        if kept and finished(kept):
            return np.load(kept, allow_pickle=False)
        edges = (
            ridge_edges(maps.read_boundaries(name))
            if source == "learned"
            else image_edges(voc.read_image(folder, name), source, settings)
        )
        found = edge_boxes(edges, settings)
        if kept:
            content = io.BytesIO()
            np.save(content, found)
            write_whole(kept, content.getvalue(), durable=False)
        return found

    return dict(zip(names, parallel.over(one, names, f"boxes of {SOURCES[source]}"), strict=True))


def save_proposals(proposals: dict[str, np.ndarray], split: str) -> None:
    PROPOSALS.mkdir(parents=True, exist_ok=True)
    np.savez(PROPOSALS / f"{split}.npz", **proposals)


def load_proposals(split: str) -> dict[str, np.ndarray]:
    with np.load(PROPOSALS / f"{split}.npz", allow_pickle=False) as stored:
        return dict(stored)


def overlaps(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(N, M) intersection over union of (N, 4) and (M, 4) boxes."""
    first, second = (np.asarray(b, np.float32).reshape(-1, 4) for b in (boxes, objects))
    first, second = first[:, None], second[None]  # torchvision's box_iou does the same, and takes seconds to import
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    common = sides.clip(min=0).prod(axis=-1)
    areas = [(b[..., 2:] - b[..., :2]).prod(axis=-1) for b in (first, second)]
    return common / (areas[0] + areas[1] - common)


def recall(proposals: dict[str, np.ndarray], objects: pd.DataFrame, counts: list[int], iou: float = 0.5) -> pd.Series:
    """The share of objects that one of the first n proposals overlaps by at least `iou`, for each n of `counts`."""
    rank = []  # of the first proposal that finds the object
    for name, group in objects.groupby("image"):
        hits = overlaps(proposals[name][:, :4], group[["x1", "y1", "x2", "y2"]].to_numpy()) >= iou
        rank += [np.flatnonzero(column)[0] if column.any() else np.inf for column in hits.T]
    return pd.Series({n: float(np.mean(np.array(rank) < n)) for n in counts}, name="recall")


def recall_by_size(
    proposals: dict[str, np.ndarray], objects: pd.DataFrame, sizes: pd.Series, counts: list[int]
) -> pd.DataFrame:
    """`recall` of all objects and of those of each size: a row per count. `sizes` is metrics.size_bin's."""
    groups = {"all": objects} | dict(list(objects.groupby(sizes, observed=True)))
    return pd.DataFrame({name: recall(proposals, group, counts) for name, group in groups.items()}).rename_axis("boxes")

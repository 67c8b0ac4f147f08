"""Edges for Edge Boxes from one of three sources: the detector of boundaries.py, OpenCV's structured forest (as
in the paper), or the image gradient. Each gives thin lines with their orientation.
"""

import gzip
import zlib
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from deconvnet.config.errors import UserError
from deconvnet.config.schema import Proposals
from deconvnet.data import download

MAX_FOREST_BYTES = 2**31  # no forest is as large
SOURCES = {"learned": "learned boundaries", "forest": "structured forest", "gradient": "gradient edges"}
Edges = tuple[np.ndarray, np.ndarray]  # float32 (H, W): strength in 0–1 on thin lines; direction across them in 0–π


def thin(strength: np.ndarray, across: np.ndarray) -> Edges:
    """Non-maximum suppression: keeps pixels stronger than both neighbours in the direction `across` (radians).

    Without it Edge Boxes takes several times as long and groups edges badly.
    """
    x, y = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in strength.shape[::-1]))
    dx, dy = np.cos(across).astype(np.float32), np.sin(across).astype(np.float32)
    ahead, behind = (cv2.remap(strength, x + s * dx, y + s * dy, cv2.INTER_LINEAR) for s in (1, -1))
    lines = np.where((strength >= ahead) & (strength > behind), strength, 0)
    lines = lines / max(lines.max(), 1e-6)
    # OpenCV's last bit depends on the arrays' addresses; with it the scores of boxes would differ from run to run.
    return lines.round(4).astype(np.float32), (across % np.pi).round(4).astype(np.float32)


def gradient_edges(image: np.ndarray) -> Edges:
    """Sobel edges of an RGB image in Lab; at each pixel of the channel with the steepest gradient."""
    lab = cv2.GaussianBlur(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), (0, 0), 1)
    dx, dy = cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)
    steepest = (dx**2 + dy**2).argmax(axis=2)[..., None]
    dx, dy = (np.take_along_axis(d, steepest, axis=2)[..., 0] for d in (dx, dy))
    return thin(cv2.magnitude(dx, dy), np.arctan2(dy, dx))


def ridge_edges(probability: np.ndarray) -> Edges:
    """The ridges of a boundary map, float32 (H, W) in 0–1: across them it curves down most."""
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


def fetch_forest(settings: Proposals, folder: Path) -> Path:
    """Downloads the forest's file from the address `settings.forest` into `folder`, unless it is there already.

    It is used only if its gzip checksum is right and its SHA-256 is the settings', or else the one recorded beside it
    at its first use. Raises UserError.
    """
    path = folder / settings.forest.rsplit("/", 1)[1]
    try:
        download.download(settings.forest, path, lambda file: forest_problem(file, settings.forest_sha256))
    except UserError as error:
        instead = "Without it: proposals.edges: learned and proposals.forest: null."
        raise UserError(f"{error} {instead}") from None
    return path


def forest_problem(path: Path, sha256: str | None) -> str | None:
    """What is wrong with a gzip file that should have this SHA-256 (if not None); None if nothing is."""
    unpacked = 0
    try:
        with gzip.open(path) as packed:
            while part := packed.read(download.CHUNK_BYTES):
                unpacked += len(part)
                if unpacked > MAX_FOREST_BYTES:
                    return f"it unpacks to more than {MAX_FOREST_BYTES >> 20} MiB"
    except (OSError, EOFError, zlib.error) as error:
        return f"it is not a complete gzip file ({error})"
    found = download.checksum(path, "sha256")
    return f"its SHA-256 is {found} and should be {sha256}" if sha256 not in (None, found) else None


def image_edges(image: np.ndarray, source: str, settings: Proposals) -> Edges:
    """Edges of an RGB image by a source that needs no training."""
    return forest_edges(image, settings.forest) if source == "forest" else gradient_edges(image)

"""Edge Boxes (Zitnick, Dollár, ECCV 2014) as ported by OpenCV, and how many objects its boxes find."""

import io
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from deconvnet.config.schema import Proposals
from deconvnet.data import voc
from deconvnet.images import store
from deconvnet.images.boxes import BOX, box_iou
from deconvnet.proposals.edges import SOURCES, Edges, image_edges, ridge_edges
from deconvnet.utils import parallel, resume
from deconvnet.utils.files import file_stamps, fingerprint, is_complete, write_atomic


def find_boxes(edges: Edges, settings: Proposals) -> np.ndarray:
    """(N, 5) float32: x1, y1, x2, y2, objectness, best first, at most `settings.max_boxes`; N may be 0."""
    # OpenCV's other defaults are those of the original code; minBoxArea is not (1,000 px²).
    s = settings
    finder = cv2.ximgproc.createEdgeBoxes(alpha=s.alpha, beta=s.beta, maxBoxes=s.max_boxes, minBoxArea=s.min_area)
    boxes, scores = finder.getBoundingBoxes(*edges)
    if len(boxes) == 0:
        return np.zeros((0, 5), np.float32)
    boxes = np.asarray(boxes, np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return np.hstack([boxes, np.asarray(scores, np.float32).reshape(-1, 1)])


def propose(folder: Path, names: list[str], settings: Proposals, source: str, label: str = "") -> dict[str, np.ndarray]:
    """Proposals of every image from edges of `source`, one of SOURCES, on all cores or a cluster.

    An interrupted call resumes; `label` tells the calls of one stage apart.
    """
    files = [store.boundaries_path(n) if source == "learned" else voc.image_path(folder, n) for n in names]

    def inputs() -> dict[str, str]:
        return {
            "settings": fingerprint(settings.model_dump(mode="json"), source),
            "images": fingerprint(file_stamps(files)),
        }

    done = resume.resume_dir(" ".join(["Edge Boxes", source, label]).strip(), inputs)

    def task(name: str) -> np.ndarray:
        path = done / f"{name}.npy" if done else None
        if path and is_complete(path):
            return np.load(path, allow_pickle=False)
        edges = (
            ridge_edges(store.read_boundaries(name))
            if source == "learned"
            else image_edges(voc.read_image(folder, name), source, settings)
        )
        boxes = find_boxes(edges, settings)
        if path:
            content = io.BytesIO()
            np.save(content, boxes)
            write_atomic(path, content.getvalue(), durable=False)
        return boxes

    return dict(zip(names, parallel.process_map(task, names, f"boxes of {SOURCES[source]}"), strict=True))


def recall(proposals: dict[str, np.ndarray], objects: pd.DataFrame, counts: list[int], iou: float = 0.5) -> pd.Series:
    """For each n of `counts`, the share of objects that one of the best n proposals overlaps by at least `iou`."""
    rank = []  # of the first proposal that finds the object
    for name, group in objects.groupby("image"):
        hits = box_iou(proposals[name][:, :4], group[BOX].to_numpy()) >= iou
        rank += [np.flatnonzero(column)[0] if column.any() else np.inf for column in hits.T]
    return pd.Series({n: float(np.mean(np.array(rank) < n)) for n in counts}, name="recall")


def recall_by_size(
    proposals: dict[str, np.ndarray], objects: pd.DataFrame, sizes: pd.Series, counts: list[int]
) -> pd.DataFrame:
    """`recall` of all objects and of those of each size: a row per count. `sizes` is from voc.size_bin."""
    groups = {"all": objects} | dict(list(objects.groupby(sizes, observed=True)))
    return pd.DataFrame({name: recall(proposals, group, counts) for name, group in groups.items()}).rename_axis("boxes")

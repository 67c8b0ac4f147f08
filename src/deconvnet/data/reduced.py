"""Large photographs of a folder, reduced with their masks when they are imported: every stage then works on pictures of
at most photograph.MAX_SIDE_PX, in a time and memory that this bounds, and results are measured on them.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from deconvnet.data import classes, photograph, voc
from deconvnet.data.checks import MAX_MIXED_SHARE
from deconvnet.data.classes import VOID
from deconvnet.data.photograph import MAX_SIDE_PX


def is_large(root: Path, name: str) -> bool:
    with Image.open(voc.image_path(root, name)) as image:  # reads the header only
        return max(image.size) > MAX_SIDE_PX


def sentence(root: Path, names: list[str]) -> str | None:
    """What a user must know of the large photographs among `names`; None if there is none."""
    number = sum(is_large(root, name) for name in names)
    if number == 0:
        return None
    return (
        f"{number} of {len(names)} photographs have more than {MAX_SIDE_PX} px on their longer side. They are reduced "
        "to it, with their masks, and results are measured on the reduced pictures; the folder itself stays as it is."
    )


def place(root: Path, folder: Path, name: str) -> None:
    """Writes a large photograph of `root` and its masks, reduced, into `folder`."""
    image = photograph.reduce(voc.read_image(root, name))
    Image.fromarray(image).save(voc.image_path(folder, name), quality=95, subsampling=0)
    labels, instances = reduce_masks(voc.read_labels(root, name), voc.read_instances(root, name), image.shape[:2])
    voc.save_mask(voc.labels_path(folder, name), labels, classes.read(root).palette)
    voc.save_mask(voc.instances_path(folder, name), instances, classes.colour_map())


def reduce_masks(labels: np.ndarray, instances: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Class and instance mask, uint8 (H, W), at another shape: the nearest pixel of both.

    Of a small object too few pixels may be left to tell its class, or none beside pixels of its class that belong to no
    object. They become void: what a sound folder is reduced to is sound.
    """
    labels, instances = (
        np.array(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST)) for mask in (labels, instances)
    )
    votes = voc.count_pixels(labels, instances)[:, 1:VOID]
    clear = votes.max(axis=1) > (1 - MAX_MIXED_SHARE) * votes.sum(axis=1)  # of one class, but for some pixels
    clear[[0, VOID]] = True  # no objects
    lost = ~clear[instances]
    labels[lost] = instances[lost] = VOID
    votes = voc.count_pixels(labels, instances)[:, 1:VOID]
    bare = np.flatnonzero(votes.any(axis=0) & ~votes[1:VOID].any(axis=0)) + 1
    labels[np.isin(labels, bare)] = VOID
    return labels, instances

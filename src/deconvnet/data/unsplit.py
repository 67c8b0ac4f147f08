"""Folders without train.txt and val.txt, as annotation tools export them: train, dev and val by a seeded split."""

import os
import random
from pathlib import Path

from deconvnet.config.errors import UserError
from deconvnet.data import exports, voc

DEFAULT = "default"  # the one list of CVAT's export
LEAST = 3  # images: one for each split


def is_unsplit(folder) -> bool:
    """Whether the folder has default.txt, or no list at all, in place of train.txt and val.txt."""
    if any(os.path.lexists(voc.list_path(folder, split)) for split in voc.SPLITS):
        return False
    lists = Path(folder, voc.LISTS)
    return os.path.lexists(voc.list_path(folder, DEFAULT)) or not os.path.isdir(lists) or not any(lists.glob("*.txt"))


def names(folder, listed: list[str] | None) -> list[str]:
    """The ids with a class mask, in order: of those `listed`, or of all photographs."""
    if listed is None:
        found = os.scandir(Path(folder, voc.IMAGES)) if os.path.isdir(Path(folder, voc.IMAGES)) else []
        listed = {Path(entry.name).stem for entry in found if entry.name.endswith(exports.IMAGE_SUFFIXES)}
        listed = {name for name in listed if not voc.wrong_id(name)}
    return sorted(name for name in {*listed} if os.path.lexists(voc.labels_path(folder, name)))


def split(folder, seed: int) -> dict[str, list[str]]:
    """A fifth of the ids for val, a tenth for dev, both rounded up, and the others for train: by `seed` and the ids
    alone. Raises UserError for fewer than three, and FileError if default.txt cannot be read.
    """
    default = os.path.lexists(voc.list_path(folder, DEFAULT))
    shuffled = names(folder, voc.read_list(folder, DEFAULT) if default else None)
    if len(shuffled) < LEAST:
        raise UserError(f"{folder} has {len(shuffled)} image(s) with a mask: train, dev and val need one each.")
    random.Random(seed).shuffle(shuffled)
    val, dev = -(-len(shuffled) // 5), -(-len(shuffled) // 10)
    parts = {"train": shuffled[val + dev :], "dev": shuffled[val : val + dev], "val": shuffled[:val]}
    return {part: sorted(ids) for part, ids in parts.items()}


def sentence(folder, splits: dict[str, list[str]], seed: int) -> str:
    """What a user must know of such a split."""
    sizes = ", ".join(f"{len(ids)} {part}" for part, ids in splits.items())
    return (
        f"{folder} has no train.txt and val.txt: its {sum(map(len, splits.values()))} images with a mask are split by "
        f"seed {seed} (data.seed): {sizes}. The lists are written to data/voc/{voc.LISTS}; copy them into the folder "
        "to keep the split when images are added."
    )

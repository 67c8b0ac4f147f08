"""The data's sources: each ends as one VOC-layout folder with train.txt, dev.txt and val.txt.

dev is held out of train, so that settings can be chosen without a look at val.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import loadmat
from tqdm import tqdm

from deconvnet import icons, paths, voc
from deconvnet.errors import UserError
from deconvnet.params import Params


def import_folder(root: Path, out: Path, *, dev: int, seed: int) -> None:
    """Any folder in VOC layout with train.txt and val.txt -> the folder `out`, which is replaced if it exists.

    Its dev.txt is used as it is; without one, `dev` ids are held out of train, chosen by `seed`. The listed images and
    masks alone are taken over, as hard links where the file system can, else as copies.

    Raises UserError if voc.check() finds a problem in `root`, or if `dev` leaves no image to train on.
    """
    root, out = Path(root), Path(out)
    _keep_source(root, out)
    given = [split for split in voc.SPLITS if split != "dev" or voc.list_path(root, "dev").exists()]
    voc.require(root, given)
    splits = {split: voc.read_list(root, split) for split in given}
    if "dev" not in splits:
        splits["train"], splits["dev"] = _hold_out(splits["train"], dev, seed)
    _write(out, splits, lambda folder, name: _link_all(root, folder, name))


def import_voc2012(root: Path, out: Path, *, dev: int, seed: int, test_root: Path | None = None) -> None:
    """VOC 2012 with SBD's additional masks -> the folder `out`, which is replaced if it exists.

    val is VOC's val (1,449 images). train is VOC's train and all of SBD without val (10,582 images, known as
    train_aug), less `dev` ids held out of it, chosen by `seed`. Where VOC has a mask, VOC's is taken: it is finer than
    SBD's and has void.

    With `test_root`, the folder VOC2012 of the test archive, VOC's val is trained on as well (12,031 images less
    `dev`), and val is the test list, whose masks are void throughout: nobody outside the VOC server has them.

    The archives are torchvision's: fetched into `root` and `root`/sbd, unless they lie there already.

    Raises UserError if an archive cannot be had or has the wrong MD5, if a file is missing in it, or if `dev` leaves no
    image to train on.
    """
    # imported here because it takes seconds and no other source needs it
    from torchvision.datasets import SBDataset, VOCSegmentation
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    root, out = Path(root), Path(out)
    _keep_source(root, out)

    archive = DATASET_YEAR_DICT["2012"]
    voc_folder, voc_file = root / archive["base_dir"], root / archive["filename"]
    sbd_folder, sbd_file = root / "sbd", root / "sbd" / SBDataset.filename

    def voc2012(image_set: str, download: bool) -> list[str]:
        dataset = _fetch(
            lambda: VOCSegmentation(str(root), year="2012", image_set=image_set, download=download),
            voc_file, archive["url"], archive["md5"],
        )  # fmt: skip
        return [Path(path).stem for path in dataset.masks]

    def sbd(image_set: str, download: bool) -> list[str]:
        dataset = _fetch(
            lambda: SBDataset(str(sbd_folder), image_set=image_set, mode="segmentation", download=download),
            sbd_file, SBDataset.url, SBDataset.md5,
        )  # fmt: skip
        return [Path(path).stem for path in dataset.masks]

    # torchvision unpacks at each download=True, so once is enough. With the archive at hand VOC is unpacked afresh,
    # which heals an interrupted unpacking; SBD cannot be unpacked twice, and val.txt is the last file that it moves.
    voc_train = voc2012("train", download=voc_file.exists() or not voc_folder.is_dir())
    voc_val = voc2012("val", download=False)
    sbd_train = sbd("train", download=not (sbd_folder / "val.txt").exists())
    sbd_val = sbd("val", download=False)

    own = {*voc_train, *voc_val}
    labelled = {*own, *sbd_train, *sbd_val}
    reported = voc.read_list(test_root, "test") if test_root else voc_val
    train, held = _hold_out(sorted(labelled - set(reported)), dev, seed)

    def place(folder: Path, name: str) -> None:
        if name not in labelled:
            _link(voc.image_path(test_root, name), voc.image_path(folder, name))
            void = np.full(voc.read_image(test_root, name).shape[:2], voc.VOID)
            voc.save_mask(voc.labels_path(folder, name), void)
            voc.save_mask(voc.instances_path(folder, name), void)
        elif name in own:
            _link_all(voc_folder, folder, name)
        else:
            _link(sbd_folder / "img" / f"{name}.jpg", voc.image_path(folder, name))
            voc.save_mask(voc.labels_path(folder, name), _sbd_mask(sbd_folder / "cls" / f"{name}.mat", "GTcls"))
            voc.save_mask(voc.instances_path(folder, name), _sbd_mask(sbd_folder / "inst" / f"{name}.mat", "GTinst"))

    _write(out, {"train": train, "dev": held, "val": reported}, place)


def _keep_source(root: Path, out: Path) -> None:
    if root.resolve().is_relative_to(out.resolve()):
        raise UserError(f"The data in {root} would be overwritten by their import into {out}. Name another folder.")


def _hold_out(train: list[str], dev: int, seed: int) -> tuple[list[str], list[str]]:
    """(train without the held-out ids, held-out ids), both in the list's order."""
    if not 0 < dev < len(train):
        raise UserError(
            f"dev = {dev} images cannot be held out of {len(train)} training images. "
            f"Set dev to a number from 1 to {len(train) - 1}."
        )
    held = set(random.Random(seed).sample(sorted(train), dev))  # sorted: the choice depends on the ids alone
    return [name for name in train if name not in held], [name for name in train if name in held]


def _fetch(dataset: Callable, file: Path, url: str, md5: str):
    try:
        return dataset()
    except (RuntimeError, OSError) as error:  # torchvision's checksum error; network, disk and unpacking errors
        raise UserError(
            f"{file} could not be fetched from {url} and unpacked ({error}). Run it again; if that does not help, "
            f"empty {file.parent}, put the archive with the MD5 checksum {md5} there by hand, and run it once more."
        ) from error


def _sbd_mask(path: Path, key: str) -> np.ndarray:
    """SBD's mask of one image, (H, W) uint8: classes 0-20 for the key GTcls, instances 0.. for GTinst."""
    try:
        with path.open("rb") as file:
            return loadmat(file)[key][0]["Segmentation"][0]
    except FileNotFoundError:
        raise _missing(path) from None
    except Exception as error:  # for a broken file scipy raises a dozen kinds, zlib's among them
        raise UserError(f"{path} is not a mask of SBD ({error}). Unpack the SBD archive again.") from error


def _missing(path: Path) -> UserError:
    return UserError(f"{path} is missing, although a list names it. Unpack the archive again.")


def _link(source: Path, target: Path) -> None:
    source = source.resolve()  # a link to a symbolic link would not survive the move
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise _missing(source) from None
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _link_all(root: Path, folder: Path, name: str) -> None:
    for path in (voc.image_path, voc.labels_path, voc.instances_path):
        _link(path(root, name), path(folder, name))


def _write(out: Path, splits: dict[str, list[str]], place: Callable[[Path, str], None]) -> None:
    """Make the VOC-layout folder `out`; place(folder, name) puts one image with its masks into it.

    The work is done in a sibling folder that takes its name at the end, so that nothing half-written stays.
    """
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    try:
        for sub in (voc.IMAGES, voc.LABELS, voc.INSTANCES, voc.LISTS):
            (partial / sub).mkdir(parents=True)
        for split, names in splits.items():
            voc.list_path(partial, split).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
            for name in tqdm(names, desc=f"import {split}", unit="image"):
                place(partial, name)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def prepare(params: Params, out: Path) -> None:
    """The data set of a profile as the VOC-layout folder `out`."""
    data = params.data
    if data.source == "icons":
        shutil.rmtree(out, ignore_errors=True)
        icons.generate(out, **params.icons.model_dump())
    else:
        held_out = {"dev": data.dev, "seed": data.seed}
        if data.source == "folder":
            import_folder(paths.ROOT / data.root, out, **held_out)
        else:
            test = data.test_root and paths.ROOT / data.test_root
            import_voc2012(paths.ROOT / data.root, out, **held_out, test_root=test)


def list_objects(folder: Path) -> pd.DataFrame:
    """voc.objects of every split, with a column `split`."""
    found = [voc.objects(folder, voc.read_list(folder, split)).assign(split=split) for split in voc.SPLITS]
    return pd.concat(found, ignore_index=True)

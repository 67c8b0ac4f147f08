"""Sources of data: each becomes one VOC-layout folder with train.txt, dev.txt and val.txt.

dev is held out of train, so that settings can be chosen without looking at val.
"""

import itertools
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import loadmat
from tqdm import tqdm

from deconvnet.config import paths
from deconvnet.config.errors import UserError
from deconvnet.config.schema import Params
from deconvnet.data import classes, convert, download, icon_scenes, reading, unsplit, validate, voc
from deconvnet.data.convert import link, missing

MAX_UNPACKED_BYTES = 2**33  # of an archive: several times what VOC's and SBD's hold


def import_folder(root: Path, out: Path, *, dev: int, seed: int) -> None:
    """Any folder in VOC layout, or as annotation tools export it -> the folder `out`, which is replaced if it exists.

    Its dev.txt is used as it is; without one, `dev` ids are held out of train, chosen by `seed`. Without train.txt and
    val.txt all three are chosen by `seed`. The images and masks are taken over, as hard links where possible, otherwise
    as copies; what is stored otherwise than every stage reads it is converted, large photographs and their masks are
    reduced, and a line says so.

    Raises UserError if validate.check() finds an error in `root`, or if `dev` leaves no image to train on, or none with
    an object to train or to select on.
    """
    root, out = Path(root), Path(out)
    _keep_source(root, out)

    def describe(folder: Path) -> None:
        classes.write(folder, classes.read(root))
        if note := voc.components_note(root):
            (folder / voc.COMPONENTS).write_text(f"{note}\n", encoding="utf-8")

    _write(out, split_folder(root, dev=dev, seed=seed), partial(convert.place, root), describe)


def split_folder(root: Path, *, dev: int, seed: int) -> dict[str, list[str]]:
    """The ids of train, dev and val that `import_folder` takes from `root`. Raises UserError as it does."""
    given = validate.given_splits(root)
    validate.require(root, given)
    splits = {split: voc.read_list(root, split) for split in given} or unsplit.split(root, seed)
    said = [] if given else [unsplit.sentence(root, splits, seed)]
    for sentence in (*said, *convert.sentences(root, list(itertools.chain(*splits.values())))):
        print(sentence, flush=True)
    if "dev" in given:
        return splits
    if given:
        splits["train"], splits["dev"] = _hold_out(splits["train"], dev, seed)
        how, instead = f"with dev = {dev} images held out of {root}'s train.txt", "a dev.txt with objects beside it"
    else:
        how, instead = f"when {root} is split by seed {seed}", "train.txt, dev.txt and val.txt"
    for split in ("train", "dev"):
        masks = (voc.read_instances(root, name) for name in splits[split])  # one is read, unless it has no object
        if not any(((mask > 0) & (mask < voc.VOID)).any() for mask in masks):
            raise UserError(
                f"No image of {split} has an object, {how}. Write {instead}, or change data.dev or data.seed."
            )
    return splits


def import_voc2012(root: Path, out: Path, *, dev: int, seed: int, test_root: Path | None = None) -> None:
    """VOC 2012 with SBD's additional masks -> the folder `out`, which is replaced if it exists.

    val is VOC's val (1,449 images). train is VOC's train and all of SBD without val (10,582 images, known as
    train_aug), less `dev` ids held out of it, chosen by `seed`. Where VOC has a mask, VOC's is taken: it is finer than
    SBD's and has void.

    With `test_root`, the folder VOC2012 of the test archive, VOC's val is trained on as well (12,031 images less
    `dev`), and val is the test list, whose masks are void throughout: only the VOC server has them.

    The archives are torchvision's, downloaded into `root` and `root`/sbd unless they are there.

    Raises UserError if an archive cannot be had or has the wrong MD5, if a file is missing in it, or if `dev` leaves no
    image to train on.
    """
    from torchvision.datasets import SBDataset  # late: it takes seconds and no other source needs it
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    root, out = Path(root), Path(out)
    _keep_source(root, out)
    tested = voc.read_list(test_root, "test") if test_root else None  # first: downloading the archives takes hours

    official = DATASET_YEAR_DICT["2012"]
    voc_folder, sbd_folder = root / official["base_dir"], root / "sbd"
    if not voc_folder.is_dir():
        archive = root / official["filename"]
        download.download(official["url"], archive, download.of_md5(official["md5"]))
        _unpack_into(voc_folder.parent, archive, Path(official["base_dir"]).parent)
    if not (sbd_folder / "val.txt").is_file():  # unpacked last
        archive = sbd_folder / SBDataset.filename
        download.download(SBDataset.url, archive, download.of_md5(SBDataset.md5))
        _unpack_into(sbd_folder, archive, Path("benchmark_RELEASE", "dataset"))

    voc_train, voc_val = (voc.read_list(voc_folder, split) for split in ("train", "val"))
    sbd_train, sbd_val = (reading.read_ids(sbd_folder / f"{split}.txt") for split in ("train", "val"))
    own = {*voc_train, *voc_val}
    labelled = {*own, *sbd_train, *sbd_val}
    reported = voc_val if tested is None else tested
    train, held = _hold_out(sorted(labelled - set(reported)), dev, seed)

    def place(folder: Path, name: str) -> None:
        if name not in labelled:
            link(voc.image_path(test_root, name), voc.image_path(folder, name))
            void = np.full(voc.read_image(test_root, name).shape[:2], voc.VOID)
            voc.save_mask(voc.labels_path(folder, name), void)
            voc.save_mask(voc.instances_path(folder, name), void)
        elif name in own:
            _link_all(voc_folder, folder, name)
        else:
            link(sbd_folder / "img" / f"{name}.jpg", voc.image_path(folder, name))
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


def _unpack_into(folder: Path, archive: Path, inside: Path) -> None:
    """Puts the content of the archive's folder `inside` into `folder`, replacing what an earlier try left there."""
    unpacked = archive.with_name(f".{archive.name}.unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)
    download.unpack(archive, unpacked, MAX_UNPACKED_BYTES)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted((unpacked / inside).iterdir()):  # val.txt comes last: it shows that all is there
            shutil.rmtree(folder / path.name, ignore_errors=True)
            path.replace(folder / path.name)
    except OSError as error:
        raise UserError(f"{archive} does not hold {inside} ({error}). Delete it and run it again.") from None
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _sbd_mask(path: Path, key: str) -> np.ndarray:
    """SBD's mask of one image, (H, W) uint8: classes 0-20 for the key GTcls, instances 0.. for GTinst."""
    try:
        with path.open("rb") as file:
            return loadmat(file)[key][0]["Segmentation"][0]
    except FileNotFoundError:
        raise missing(path) from None
    except Exception as error:  # for a broken file scipy raises a dozen kinds, zlib's among them
        raise UserError(f"{path} is not a mask of SBD ({error}). Unpack the SBD archive again.") from error


def _link_all(root: Path, folder: Path, name: str) -> None:
    for path in (voc.image_path, voc.labels_path, voc.instances_path):
        link(path(root, name), path(folder, name))


def _write(
    out: Path,
    splits: dict[str, list[str]],
    place: Callable[[Path, str], None],
    describe: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Make the VOC-layout folder `out`; place(folder, name) puts one image with its masks into it, describe(folder)
    what else belongs to it.

    The work is done in a sibling folder that is renamed at the end, so that nothing half-written stays.
    """
    part = out.with_name(f".{out.name}.partial")
    shutil.rmtree(part, ignore_errors=True)  # what a killed run left
    try:
        for sub in (voc.IMAGES, voc.LABELS, voc.INSTANCES, voc.LISTS):
            (part / sub).mkdir(parents=True)
        for split, names in splits.items():
            voc.list_path(part, split).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
            for name in tqdm(names, desc=f"import {split}", unit="image"):
                place(part, name)
        describe(part)
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def prepare(params: Params, out: Path) -> None:
    """The data set of a profile as the VOC-layout folder `out`."""
    data = params.data
    if data.source == "icons":
        shutil.rmtree(out, ignore_errors=True)
        icon_scenes.generate(out, **params.icons.model_dump())
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

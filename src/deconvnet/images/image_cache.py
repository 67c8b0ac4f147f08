"""A cache of decoded images: the files of a list of ids, decoded once into one memory-mapped uint8 file.

All stages of a run share it: data/pixels/ is no output of DVC, and is made anew when a file of the list changes.
Memory holds only what is used, so 10,582 photographs with masks (10 GB) fit a machine that cannot hold them all.
"""

import fcntl
import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from tqdm import tqdm

from deconvnet.config import machine
from deconvnet.config.paths import IMAGE_CACHE, VOC
from deconvnet.data import voc
from deconvnet.utils.files import file_stamps, fingerprint, write_atomic


@contextmanager
def exclusive_lock(lock: Path) -> Iterator[None]:
    """Only one process at a time is inside; a kill releases the lock."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Images:
    """images[name] → photograph (H, W, 3), labels (H, W) and instances (H, W), uint8; without `masks`, the photograph.

    The arrays of an image lie one after another in the file, the images in the order of the list. Raises FileError for
    a file that cannot be read.
    """

    def __init__(self, folder: Path, names: list[str], masks: bool = True):
        self.folder, self.names, self.masks = Path(folder), names, masks
        place = IMAGE_CACHE
        if self.folder != VOC:  # leave nothing beside the user's folder
            place = Path(tempfile.mkdtemp())
            weakref.finalize(self, shutil.rmtree, place)
        path = place / f"{fingerprint(names, masks)[:16]}.u8"
        paths = [voc.image_path, *([voc.labels_path, voc.instances_path] if masks else [])]
        stamp = fingerprint(file_stamps(of(self.folder, name) for name in names for of in paths))
        record = path.with_suffix(".json")
        with exclusive_lock(path.with_suffix(".lock")):
            known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() and path.is_file() else {}
            if known.get("files") != stamp:
                known = {"files": stamp} | self._decode(path)
                write_atomic(record, json.dumps(known).encode())
        self.pixels, self.shapes = known["pixels"], np.array(known["shapes"]).reshape(-1, 2)
        areas = self.shapes.prod(axis=1) * (5 if masks else 3)
        self.starts = np.concatenate([[0], np.cumsum(areas)])
        self.index = {name: i for i, name in enumerate(names)}
        # Copy on write, since torch wants writable arrays. An empty file cannot be mapped.
        self.flat = np.asarray(np.memmap(path, np.uint8, "c")) if self.starts[-1] else np.zeros(0, np.uint8)
        self._on_device = None

    def _decode(self, path: Path) -> dict:
        """Writes the file; returns its hash and the shapes of the images."""

        def read(name: str) -> tuple[np.ndarray, ...]:
            readers = [voc.read_image, *([voc.read_labels, voc.read_instances] if self.masks else [])]
            return tuple(reader(self.folder, name) for reader in readers)

        partial, digest, shapes = path.with_suffix(".partial"), hashlib.sha256(), []
        jobs = Parallel(machine.cores(), backend="threading", return_as="generator")(map(delayed(read), self.names))
        with partial.open("wb") as file:
            for arrays in tqdm(jobs, total=len(self.names), desc="decoding images", unit="image", mininterval=1):
                shapes.append(arrays[0].shape[:2])
                for array in arrays:
                    file.write(array.data)
                    digest.update(array.data)
        partial.replace(path)
        return {"pixels": digest.hexdigest(), "shapes": shapes}

    def fingerprint(self) -> str:
        """A hash over all pixels, masks and ids."""
        return fingerprint(self.pixels, self.shapes, self.names)

    def __getitem__(self, name: str) -> tuple[np.ndarray, ...]:
        i = self.index[name]
        (height, width), area = self.shapes[i], self.shapes[i].prod()
        photograph, *masks = np.split(self.flat[self.starts[i] : self.starts[i + 1]], [3 * area, 4 * area])
        masks = masks if self.masks else []
        return photograph.reshape(height, width, 3), *(mask.reshape(height, width) for mask in masks)

    def fits(self, device: torch.device) -> bool:
        """Whether the GPU has room for all of it and as much again for the training."""
        return 2 * self.flat.nbytes < torch.cuda.mem_get_info(device)[0]

    def on_device(self, device: torch.device) -> torch.Tensor:
        """All images in one flat tensor on `device`, for crops.CropBatch; copied there once."""
        if self._on_device is None or self._on_device.device != device:
            self._on_device = torch.from_numpy(self.flat).to(device)
        return self._on_device

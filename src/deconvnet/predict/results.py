"""What is written for a picture: its mask, its overlay, its probabilities."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from deconvnet.data import photograph, voc
from deconvnet.data.reading import FileError
from deconvnet.predict.predictor import Predictor, label_map
from deconvnet.report import figures
from deconvnet.utils.files import write_atomic


def segment(predict: Predictor, path: Path, mask: Path, over: Path, probabilities: Path | None = None) -> str:
    """Writes the results of a picture; returns a line about them. Raises FileError."""
    image = photograph.read(path)
    found = predict.probabilities(image)
    labels = label_map(found, image.shape[:2])
    try:
        mask.parent.mkdir(parents=True, exist_ok=True)
        voc.save_mask(mask, labels, predict.classes.palette)
        Image.fromarray(figures.overlay(image, labels)).save(over)
        if probabilities:
            save_probabilities(probabilities, found, predict.classes.names)
    except OSError as error:
        advice = "Free some space there, or name another --out"
        raise FileError(path, f"has a result that cannot be written ({error})", advice) from None
    (height, width), (seen_height, seen_width) = labels.shape, found.shape[1:]
    size = ""
    if seen_height < height or seen_width < width:
        size = f"{width} x {height} px, segmented at {seen_width} x {seen_height}"
        size += ", the size of its probabilities: " if probabilities else ": "
    share, known = np.bincount(labels.ravel()) / labels.size, predict.classes.names
    objects = ", ".join(f"{known[k]} {share[k]:.0%}" for k in np.argsort(-share) if k and share[k])
    names = ", ".join(target.name for target in (mask, over, probabilities) if target)
    return f"{path}: {size}{objects or 'background only'} -> {names}"


def save_probabilities(path: Path, probabilities: np.ndarray, names: tuple[str, ...]) -> None:
    """Writes (C, h, w) class probabilities as float16 `probabilities`, and the names of the `classes`, (C,)."""
    content = io.BytesIO()
    np.savez_compressed(content, probabilities=in_half(probabilities), classes=np.array(names))
    write_atomic(path, content.getvalue(), durable=False)


def in_half(probabilities: np.ndarray) -> np.ndarray:
    """float16 (C, H, W) with the same class highest at each pixel: where rounding makes another one equal, the next
    float16 is taken for it.
    """
    half, best = probabilities.astype(np.float16), probabilities.argmax(axis=0)
    rows, columns = np.nonzero(half.argmax(axis=0) != best)
    half[best[rows, columns], rows, columns] = np.nextafter(half[:, rows, columns].max(axis=0), np.float16(2))
    return half

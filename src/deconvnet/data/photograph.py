"""Photographs that people hand in: any picture that Pillow opens, and the size at which the networks see them."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from deconvnet.data.reading import FileError, decode

MAX_SIDE_PX = 500  # of VOC's photographs; larger ones are reduced to it, which bounds time and memory
DEEP_GREY = ("PNG", "JPEG2000", "PPM")  # formats whose grey of more than 8 bits Pillow spreads over 0-65535
BITS, PHOTOMETRIC = TiffImagePlugin.BITSPERSAMPLE, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION


def read(path: Path) -> np.ndarray:
    """A picture upright, as its EXIF says, and over white where it is transparent: RGB uint8 (H, W, 3).

    Of several pictures in a file it is the first. Raises FileError for a file that does not give it.
    """
    image = decode(path, None, "Look at its name and folder")
    deep, white = image.mode.startswith("I") or image.mode == "F", _white(image)
    if deep and not white:
        problem = f"has pixels of mode {image.mode}, and does not say which of their values is white"
        raise FileError(path, problem, "Save it with 8 bits a colour, for instance as PNG")
    inverted = deep and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0  # white is 0, which Pillow leaves as it is
    try:
        image = ImageOps.exif_transpose(image)
        image = _over_white(_eight_bits(image, white) if deep else image)
    except Exception as error:  # Pillow converts some modes to no other, and stumbles over broken EXIF
        raise FileError(path, f"cannot be turned into RGB ({error})", "Save it as an RGB PNG") from error
    return 255 - np.array(image) if inverted else np.array(image)


def _white(image: Image.Image) -> int:
    """The value of white of a grey picture of up to 16 bits; 0 if it is not known."""
    if image.format == "TIFF":
        return 2 ** image.tag_v2[BITS][0] - 1 if image.mode.startswith("I;16") else 0
    return 65535 if image.format in DEEP_GREY and image.mode != "F" else 0


def _eight_bits(image: Image.Image, white: int) -> Image.Image:
    """A deep grey picture as one of 8 bits, where Pillow would clip it; its transparent value becomes alpha."""
    values = np.asarray(image).astype(np.float32)
    alpha = np.where(values == image.info.get("transparency"), 0, 255)
    channels = (np.rint(255 / white * values).clip(0, 255), alpha)
    return Image.merge("LA", [Image.fromarray(channel.astype(np.uint8)) for channel in channels])


def _over_white(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def reduce(picture: np.ndarray) -> np.ndarray:
    """uint8 (H, W[, 3]) with at most MAX_SIDE_PX on the longer side; a smaller picture is returned as it is."""
    if max(picture.shape[:2]) <= MAX_SIDE_PX:
        return picture
    image = Image.fromarray(picture)
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    return np.array(image)

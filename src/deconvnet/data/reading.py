"""Lists and pictures that people hand in: each is read as what it should be, or refused with what to do about it."""

import io
import os
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from deconvnet.config.errors import UserError

IHDR_DEPTH = 24  # where a PNG file has the bits of a sample


class FileError(UserError):
    """A file that cannot be used: which, what is wrong with it (a predicate), and what to do (both without a stop)."""

    def __init__(self, file, problem: str, advice: str):
        super().__init__(file, problem, advice)  # all three: what comes back from a worker process is made of them
        self.file, self.problem, self.advice = file, problem, advice

    def __str__(self) -> str:
        return f"{self.file} {self.problem}. {self.advice}."


def wrong_id(name: str) -> str | None:
    """Why no photograph can have this id."""
    reasons = {
        "is an absolute path": re.match(r"[/\\]|[A-Za-z]:", name),
        "leads to another folder": {".", ".."} & set(re.split(r"[/\\]", name)),
        "is a path": re.search(r"[/\\:]", name),
        "has characters that cannot be seen": not name.isprintable(),
        "has an extension": name.lower().endswith((".jpg", ".jpeg", ".png")),
        "is too long for the name of a file": len(name.encode(errors="replace")) > 240,
    }
    return next((reason for reason, there in reasons.items() if there), None)


def id_error(path: Path, name: str) -> FileError | None:
    """The error of an id in the list at `path`; None if it is right."""
    if reason := wrong_id(name):
        advice = "Write the plain file name without extension, for instance 2007_000032"
        return FileError(path, f"has the id '{short(name)}', which {reason}", advice)
    return None


def printable(text) -> str:
    """What every terminal can show: names of files may hold control characters, or bytes that are no text."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def short(name: str) -> str:
    return printable(name if len(name) <= 60 else f"{name[:60]}...")


def read_ids(path: Path) -> list[str]:
    """The ids in a list. Raises FileError as `read_lines` does, and for an id that no photograph can have."""
    names = read_lines(path)
    for name in names:
        if failed := id_error(path, name):
            raise failed
    return names


def read_lines(path: Path) -> list[str]:
    """What a list names, right or wrong; blank lines, CRLF and a byte-order mark are tolerated.

    Raises FileError if the list is missing, cannot be read or is not text.
    """
    content = read_bytes(path, f"Write the ids of the {path.stem} images there, one a line")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise FileError(path, "is not UTF-8 text", "Save it as plain text with one id a line") from None
    return [line.strip() for line in lines if line.strip()]


def read_bytes(path: Path, missing: str) -> bytes:
    """What the file holds. Raises FileError if it cannot be read, with the advice `missing` if it is not there."""
    if os.path.lexists(path) and not os.path.isfile(path):  # os.path, since Path raises for a name that is too long
        if os.path.islink(path):
            raise FileError(path, "is a link to a file that does not exist", missing)
        raise FileError(path, "is not a file", "Put the file itself in its place")  # reading a pipe would never end
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileError(path, "is missing", missing) from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise FileError(path, f"cannot be read ({reason})", "Put it right, or take it out of the lists") from None


def decode(path: Path, kind: str | None, missing: str) -> Image.Image:
    """The picture of a file of one kind, JPEG or PNG, or of any (None), with all its pixels. Raises FileError if the
    file does not give it.
    """
    content = read_bytes(path, missing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata, which nothing here reads ...
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # ... but not of memory
            image = Image.open(io.BytesIO(content), formats=kind and [kind])
            image.load()  # open() reads the header only; this finds truncated files
            return image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
        advice = "Scale it down, a photograph of a data set with its masks"
        raise FileError(path, f"has more than {limit}", advice) from None
    except Exception as error:  # for a broken file PIL raises a dozen kinds, zlib's and struct's among them
        # the message of UnidentifiedImageError ends in an address in memory
        reason = "it begins otherwise" if isinstance(error, UnidentifiedImageError) else error
        advice = f"Fetch it again, or convert it to {kind or 'PNG'}"
        what = f"{kind} file" if kind else "picture"
        raise FileError(path, f"is not a complete {what} ({reason})", advice) from error


def read_mask(path: Path, missing: str) -> np.ndarray:
    """The indices of a palette or greyscale PNG, uint8 (H, W), or the colours of an RGB one, uint8 (H, W, 3). Raises
    FileError if the file is something else.
    """
    image = decode(path, "PNG", missing)
    kind = f"mode {image.mode}"
    if image.mode in ("L", "RGB"):  # of fewer than 8 bits PIL stretches the values to 0-255, of 16 it drops half
        with path.open("rb") as file:
            depth = file.read(IHDR_DEPTH + 1)[IHDR_DEPTH]
        kind = f"{depth}-bit {'greyscale' if image.mode == 'L' else 'RGB'}"
    if kind not in ("mode P", "8-bit greyscale", "8-bit RGB"):
        alpha = image.mode in ("LA", "RGBA")
        advice = "Remove its alpha channel" if alpha else "Store each pixel's label, or its class's colour, with 8 bits"
        raise FileError(path, f"is a PNG of {kind}, not a palette, 8-bit greyscale or 8-bit RGB PNG", advice)
    return np.array(image)  # a copy, since torch wants writable arrays

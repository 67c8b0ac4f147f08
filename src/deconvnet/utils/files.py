"""Files that are complete or absent, fingerprints of their contents, and JSON that compares well."""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def write_atomic(path: Path, content: bytes, durable: bool = True) -> None:
    """Writes a file in one step: a reader finds the old content or the new, even after a kill or on a full disk.

    `durable`: also after a loss of power, which costs milliseconds per file. Without it such a file may be empty
    then, which `is_complete` detects. Raises OSError; the old content is then still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None  # a full disk does not name the file


def is_complete(path: Path) -> bool:
    """Whether a file written by `write_atomic` is there."""
    return path.is_file() and path.stat().st_size > 0


def fingerprint(*parts) -> str:
    """SHA-256 over the contents of arrays, tensors, tables, bytes, and anything that JSON can write."""
    digest = hashlib.sha256()
    for part in parts:
        if hasattr(part, "to_csv"):  # a table, without importing pandas, which takes seconds
            part = part.to_csv().encode()
        elif hasattr(part, "numpy"):  # a tensor, of any type and on any device
            part = np.atleast_1d(part.detach().cpu().float().numpy())
        elif not isinstance(part, bytes | np.ndarray):
            part = json.dumps(part, sort_keys=True, default=str).encode()
        if isinstance(part, np.ndarray):
            digest.update(f"{part.shape} {part.dtype}".encode())
            part = np.ascontiguousarray(part).data
        digest.update(part)
    return digest.hexdigest()


def file_stamps(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Name, size and modification time of each file: they change with its content and need no reading."""
    return [(path.name, stat.st_size, stat.st_mtime_ns) for path in paths for stat in [path.stat()]]


def write_json(path: Path, content) -> None:
    """JSON with sorted keys and floats of five decimals, so that git and DVC compare values; NaN becomes null."""

    def rounded(value):
        if isinstance(value, dict):
            return {key: rounded(v) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return [rounded(v) for v in value]
        if isinstance(value, float):
            return round(value, 5) if math.isfinite(value) else None
        return value

    write_atomic(path, (json.dumps(rounded(content), indent=2, sort_keys=True) + "\n").encode())

"""Files that are whole or not there, and what tells one content from another."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def write_whole(path: Path, content: bytes, durable: bool = True) -> None:
    """Writes a file in one step: whoever reads it, after a kill or a full disk too, finds the old content or the new.

    `durable`: after a loss of power too, which takes milliseconds a file. Without it such a file may then be empty,
    which `finished` tells. Raises OSError; what was there before is then still there.
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
        raise OSError(error.errno, error.strerror, str(path)) from None  # a full disk does not say whose file it was


def finished(path: Path) -> bool:
    """Whether a file that `write_whole` writes is there."""
    return path.is_file() and path.stat().st_size > 0


def digest(*parts) -> str:
    """SHA-256 over the contents of arrays, tensors, tables, bytes, and of what JSON can write."""
    found = hashlib.sha256()
    for part in parts:
        if hasattr(part, "to_csv"):  # a table; pandas itself takes a while to import, and few stages' runners need it
            part = part.to_csv().encode()
        elif hasattr(part, "numpy"):  # a tensor, of any type and on any device
            part = np.atleast_1d(part.detach().cpu().float().numpy())
        elif not isinstance(part, bytes | np.ndarray):
            part = json.dumps(part, sort_keys=True, default=str).encode()
        if isinstance(part, np.ndarray):
            found.update(f"{part.shape} {part.dtype}".encode())
            part = np.ascontiguousarray(part).data
        found.update(part)
    return found.hexdigest()


def stamps(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Name, size and time of each file: they change with its content, and cost nothing to read."""
    return [(path.name, stat.st_size, stat.st_mtime_ns) for path in paths for stat in [path.stat()]]

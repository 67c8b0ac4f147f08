"""Files from the network: an interrupted download resumes, a file is used only with the right checksum, and an archive
is unpacked within its folder and a bound.

Own code because neither pooch 1.9 nor torchvision 0.27 resumes a download or bounds what an archive unpacks to.
"""

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from deconvnet.config.errors import UserError
from deconvnet.utils.files import write_atomic

CHUNK_BYTES = 2**20
TIMEOUT_S = 60  # without an answer


def checksum(path: Path, method: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, method).hexdigest()


def of_md5(md5: str) -> Callable[[Path], str | None]:
    """A check for `download`: what is wrong with a file that should have this MD5 checksum, None if nothing is."""

    def wrong(path: Path) -> str | None:
        found = checksum(path, "md5")
        return None if found == md5 else f"it has the MD5 checksum {found} and should have {md5}"

    return wrong


def download(url: str, path: Path, wrong: Callable[[Path], str | None]) -> None:
    """Downloads `url` to `path`, unless it is there; an interrupted download resumes.

    The file gets its name only if `wrong` finds nothing. Its SHA-256 is recorded beside it at its first use and must
    be the same later. Raises UserError.
    """
    partial, record = path.with_name(f".{path.name}.partial"), path.with_name(f"{path.name}.sha256")
    path.parent.mkdir(parents=True, exist_ok=True)
    there = wrong(path) if path.is_file() else ""  # an incomplete file perhaps, as a browser leaves it
    if there is not None:
        try:
            _fetch(url, partial)
        except (OSError, HTTPException) as error:  # refused, timed out, cut off, disk full
            kept = f"{partial.stat().st_size:,} bytes are kept" if partial.is_file() else "nothing is kept"
            raise UserError(
                f"{path} could not be fetched from {url} ({error}); {kept}. Run it again, and it goes on from there, "
                "or put the right file there by hand" + (f"; what lies there is not: {there}." if there else ".")
            ) from None
        if came := wrong(partial):
            partial.unlink()
            raise UserError(
                f"{path} could not be fetched from {url}: {came}. Run it again, or put the right file there by hand."
            )
        partial.replace(path)
    found = checksum(path, "sha256")
    if record.is_file() and (first := record.read_text(encoding="utf-8").strip()) != found:
        raise UserError(
            f"{path} is another file than at its first use: its SHA-256 is {found}, in {record.name} it is {first}. "
            "Delete both and run it again."
        )
    write_atomic(record, f"{found}\n".encode())


def _fetch(url: str, partial: Path) -> None:
    """Downloads to `partial`: what it lacks, if the server can send a part of a file; otherwise all of it."""
    have = partial.stat().st_size if partial.is_file() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urlopen(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code == 416:  # nothing is left to send
            return
        raise
    with answer:
        have = have if answer.status == 206 else 0
        total = have + int(answer.headers.get("Content-Length") or 0)
        bar = tqdm(total=total or None, initial=have, desc=partial.name.strip("."), unit="B", unit_scale=True)
        with partial.open("ab" if have else "wb") as file, bar:
            while part := answer.read(CHUNK_BYTES):
                file.write(part)
                bar.update(len(part))
    if partial.stat().st_size < total:
        raise OSError(f"the connection ended before {total:,} bytes")


def unpack(archive: Path, folder: Path, max_bytes: int) -> None:
    """Unpacks a tar archive of plain files into `folder`, which must not exist and is complete once it does.

    Raises UserError for a member that is no plain file or folder or is outside of it, and for more than `max_bytes`;
    nothing is left then.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            _inspect(archive, tar, max_bytes)
            # Python before 3.11.4 has no filter; _inspect refuses what it would refuse.
            tar.extractall(partial, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        partial.replace(folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(
            f"{archive} could not be unpacked into {folder} ({error}). Make room, or delete it and run it again."
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _inspect(archive: Path, tar: tarfile.TarFile, max_bytes: int) -> None:
    total = 0
    for member in tar:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or not (member.isreg() or member.isdir()):
            raise UserError(f"{archive} holds {member.name!r}, which may lead out of its folder: it is not unpacked.")
        member.mode = 0o755 if member.isdir() else 0o644
        total += member.size
        if total > max_bytes:  # found in the headers, before anything is written
            raise UserError(f"{archive} would unpack to more than {max_bytes:,} bytes: it is not what its name says.")

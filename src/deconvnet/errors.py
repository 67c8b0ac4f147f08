"""The errors that users are meant to read: they say what is wrong, where, and what to do."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from deconvnet.paths import ROOT

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


class UserError(Exception):
    """Something in the settings, the data or the machine that the user can put right.

    The pipeline prints its message as one paragraph, without a traceback.
    """


def no_room(error) -> str | None:
    """What to say of an error, or of its text, if a file could not be written for want of room or of permission."""
    found = re.search(r"\[Errno (\d+)\][^'\"]*('[^']*')?", str(error))
    if found and int(found[1]) in NO_ROOM:
        kept = "What was done before is kept: make room there, or make it writable, and run the same command again."
        place = "" if "'/" in found[0] else f" in {ROOT}"
        return f"{found[0].strip()}{place}. {kept}"
    return None


@contextmanager
def plainly(name: str = "") -> Iterator[None]:
    """Ends the program with one paragraph and status 1 for an error of this kind."""
    where = f"{name}: " if name else ""
    try:
        yield
    except UserError as error:
        sys.exit(f"\n{where}{error}\n")
    except OSError as error:
        if said := no_room(error):
            sys.exit(f"\n{where}{said}\n")
        raise

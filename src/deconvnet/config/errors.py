"""The errors that users are meant to read: they say what is wrong, where, and what to do."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from deconvnet.config.paths import ROOT

CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}

# Of Python, numpy and CUDA; of a worker of joblib that was killed; of torch on a CPU; of OpenCV.
MEMORY_ERRORS = r"(MemoryError|TerminatedWorkerError|can't allocate memory|(out of|not enough|Insufficient) memory)"
MEMORY_ADVICE = (
    "If it stops at the same place again, there is too little memory. Close other programs. A training needs less with "
    "a smaller batch_size, or with more micro_batches, in its section of the profile in conf/ (params.yaml for the "
    "default), and on a GPU with DECONVNET_MICRO_BATCHES=1; work on single images needs less with DECONVNET_CORES=1."
)


class UserError(Exception):
    """Something in the settings, the data or the machine that the user can put right.

    The pipeline prints its message as one paragraph, without a traceback.
    """


def cannot_write_message(error) -> str | None:
    """The sentence for an error, or its text, if a file could not be written for lack of space or permission."""
    match = re.search(r"\[Errno (\d+)\][^'\"]*('[^']*')?", str(error))
    if match and int(match[1]) in CANNOT_WRITE:
        place = "" if "'/" in match[0] else f" in {ROOT}"
        return (
            f"{match[0].strip()}{place}. Finished work is kept: free some space there or make it writable, then run "
            "the same command again."
        )
    return None


def is_memory_error(name: str, text: str) -> bool:
    """Whether an error, by the name of its class and its text, says that memory was lacking."""
    return bool(re.search(MEMORY_ERRORS, f"{name}: {text}"))


@contextmanager
def exit_on_user_error(name: str = "") -> Iterator[None]:
    """Ends the program with one paragraph and status 1 if the user can mend the error; `name` heads the paragraph."""
    prefix = f"{name}: " if name else ""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may lack some letters
    try:
        yield
    except UserError as error:
        sys.exit(f"\n{prefix}{error}\n")
    except OSError as error:
        if message := cannot_write_message(error):
            sys.exit(f"\n{prefix}{message}\n")
        raise

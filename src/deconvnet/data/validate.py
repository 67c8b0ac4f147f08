"""Checks a folder in VOC layout: everything that is wrong with it, found in one pass.

    python -m deconvnet.data.validate FOLDER            prints it as text; exit status 1 if there is an error
    python -m deconvnet.data.validate FOLDER --json     as a list of {file, problem, advice, severity}

An error makes the folder unusable. A note is worth a look: training and evaluation run all the same.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from joblib import Parallel, delayed
from tqdm import tqdm

from deconvnet.config import machine
from deconvnet.config.errors import UserError
from deconvnet.data import reading, voc
from deconvnet.data.checks import (
    check_image,
    check_list,
    check_overlaps,
    check_repeated,
    check_split,
    check_unlisted,
    list_entries,
)
from deconvnet.data.findings import Finding, attempt, error, note
from deconvnet.data.mask_colours import check_greys
from deconvnet.data.voc import IMAGES, INSTANCES, LABELS, LISTS

MIN_IMAGES_PER_WORKER = 200  # with fewer, a further process costs more time than it saves


def check(folder, splits: Iterable[str]) -> list[Finding]:
    """Everything that is wrong with the folder's `splits`; the same list whatever the number of processes.

    Decodes each listed photograph and mask in full, on all cores. Raises UserError for a wrong DECONVNET_CORES.
    """
    folder, found = Path(folder), []
    if not os.path.isdir(folder):  # os.path, since Path raises for a name that is too long
        return [error(folder, "is not a folder", f"Name the folder that holds {IMAGES} and {LISTS}")]
    entries = {sub: attempt(found, list_entries, folder / sub) for sub in (IMAGES, LABELS, INSTANCES, LISTS)}
    entries = {sub: names for sub, names in entries.items() if names is not None}
    for sub, name in ((sub, name) for sub, names in entries.items() for name in names):
        if any(0xDC80 <= ord(letter) <= 0xDCFF for letter in name):  # how Python decodes a byte that is no text
            advice = "No list can name it. Rename it, or leave it"
            found.append(note(folder / sub / name, "has a name that is not UTF-8", advice))
    if LISTS not in entries:
        return found

    lists = {split: attempt(found, reading.read_lines, voc.list_path(folder, split)) for split in splits}
    for split, names in lists.items():
        if names is not None:
            found += check_list(voc.list_path(folder, split), names)
    usable = {split: [name for name in names or [] if not reading.wrong_id(name)] for split, names in lists.items()}
    found += check_overlaps(folder, usable)
    names = list(dict.fromkeys(itertools.chain(*usable.values())))

    cores = max(min(machine.cores(), len(names) // MIN_IMAGES_PER_WORKER), 1)
    jobs = Parallel(n_jobs=cores, return_as="generator")(delayed(check_image)(folder, n, list(entries)) for n in names)
    images = {}
    for name, (problems, seen) in zip(names, tqdm(jobs, total=len(names), desc="check", unit="image"), strict=True):
        found += problems
        images[name] = seen
    for split, listed in usable.items():
        found += check_split(folder, split, {name: images[name] for name in listed})
    if all(seen.grey for seen in images.values()):
        found += check_greys(folder, (seen.values for seen in images.values()))
    found += check_repeated(folder, images, usable)
    if None not in lists.values():  # otherwise the unreadable list may name them
        found += check_unlisted(folder, entries, names, lists)
    return found


def text(folder, found: list[Finding]) -> str:
    """The errors, then the notes, one a line; in the last line how many there are."""
    errors = [str(one) for one in found if one.severity == "error"]
    notes = [f"note: {one}" for one in found if one.severity == "note"]
    verdict = f"cannot be used: {len(errors)} error(s)" if errors else "is sound: no error"
    return "\n".join([*errors, *notes, f"{reading.printable(folder)} {verdict}, {len(notes)} note(s)."])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deconvnet.data.validate", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="as a list of {file, problem, advice, severity}")
    arguments = parser.parse_args()
    folder = arguments.folder
    try:
        found = check(folder, given_splits(folder))
    except UserError as failed:
        sys.exit(str(failed))
    output = json.dumps([asdict(one) for one in found], indent=1) if arguments.json else text(folder, found)
    sys.stdout.reconfigure(errors="backslashreplace")  # ids may have letters that the terminal cannot show
    try:
        print(output, flush=True)
    except BrokenPipeError:  # as with `| head`: the rest is dropped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(any(one.severity == "error" for one in found))


def given_splits(folder) -> list[str]:
    """The splits that the folder must list: dev.txt is optional, since a part of train can be held out instead."""
    return [split for split in voc.SPLITS if split != "dev" or os.path.lexists(voc.list_path(folder, "dev"))]


def error_messages(folder, splits: Iterable[str]) -> list[str]:
    """Every error that `check` finds, one string each, naming the file and what to do; empty if the folder is sound."""
    return [str(finding) for finding in check(folder, splits) if finding.severity == "error"]


def require(folder, splits: Iterable[str]) -> list[Finding]:
    """The notes that `check` finds. Raises UserError with the number of errors and the first ten, if there are any."""
    found = check(folder, splits)
    problems = [str(finding) for finding in found if finding.severity == "error"]
    if problems:
        shown = "".join(f"\n- {problem}" for problem in problems[:10])
        rest = f"\n- and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(
            f"{folder} cannot be used: {len(problems)} problem(s) found. To see all of them: "
            f"python -m deconvnet.data.validate {folder}{shown}{rest}"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())

"""Checks a folder in VOC layout, or as a tool exports it: everything that is wrong with it, found in one pass.

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
from deconvnet.data import classes, exports, reading, unsplit, voc
from deconvnet.data.checks import (
    check_classes,
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
    """Everything that is wrong with the folder's `splits`, or, if there are none, with what unsplit.py will split; the
    same list whatever the number of processes.

    Decodes each listed photograph and mask in full, on all cores. Raises UserError for a wrong DECONVNET_CORES.
    """
    folder, found, splits = Path(folder), [], list(splits)
    if not os.path.isdir(folder):  # os.path, since Path raises for a name that is too long
        return [error(folder, "is not a folder", f"Name the folder that holds {IMAGES} and {LABELS}")]
    entries = _entries(folder, found, [IMAGES, LABELS, INSTANCES, *([LISTS] if splits else [])])
    if splits and LISTS not in entries:
        return found
    attempt(found, classes.read, folder)

    lists, usable = _lists(folder, found, splits)
    names = list(dict.fromkeys(itertools.chain(*usable.values())))
    cores = max(min(machine.cores(), len(names) // MIN_IMAGES_PER_WORKER), 1)
    jobs = Parallel(n_jobs=cores, return_as="generator")(delayed(check_image)(folder, n, list(entries)) for n in names)
    images = {}
    for name, (problems, seen) in zip(names, tqdm(jobs, total=len(names), desc="check", unit="image"), strict=True):
        found += problems
        images[name] = seen
    for split, listed in usable.items():
        found += check_split(folder, split, {name: images[name] for name in listed})
    if images and all(seen.values for seen in images.values()):
        found += check_classes(folder, images.values())
    if all(seen.grey for seen in images.values()) and classes.file_of(folder) is None:
        found += check_greys(folder, (seen.values for seen in images.values()))
    found += check_repeated(folder, images, usable, bool(splits))
    if None not in lists.values():  # otherwise the unreadable list may name them
        found += check_unlisted(folder, entries, names, lists)
    return list(dict.fromkeys(found))  # a wrong class list is one finding, not one an image


def _entries(folder: Path, found: list[Finding], subs: list[str]) -> dict[str, list[str]]:
    """{sub-folder: the names in it}, for those that can be read; for masks of the first folder that holds them. What
    is wrong goes to `found`.
    """
    entries = {}
    for sub in subs:
        held = exports.mask_folders(folder / sub) if sub in (LABELS, INSTANCES) else [folder / sub]
        if sub == INSTANCES and not held:
            advice = "The connected components of each class count as objects; add it if objects of a class touch"
            found.append(note(folder / sub, "is missing", advice))
            entries[sub] = []
            continue
        names = attempt(found, list_entries, next(iter(held), folder / sub))
        entries |= {} if names is None else {sub: names}
        for name in names or []:
            if any(0xDC80 <= ord(letter) <= 0xDCFF for letter in name):  # how Python decodes a byte that is no text
                advice = "No list can name it. Rename it, or leave it"
                found.append(note(folder / sub / name, "has a name that is not UTF-8", advice))
    return entries


def _lists(folder: Path, found: list[Finding], splits: list[str]) -> tuple[dict, dict[str, list[str]]]:
    """{list: what it names, None if it cannot be read}, and the same with the ids that can be used."""
    own = splits or [unsplit.DEFAULT] * os.path.lexists(voc.list_path(folder, unsplit.DEFAULT))
    lists = {split: attempt(found, reading.read_lines, voc.list_path(folder, split)) for split in own}
    for split, names in lists.items():
        if names is not None:
            found += check_list(voc.list_path(folder, split), names)
    usable = {split: [name for name in names or [] if not reading.wrong_id(name)] for split, names in lists.items()}
    found += check_overlaps(folder, usable)
    if splits or None in lists.values():
        return lists, usable
    names = unsplit.names(folder, usable.get(unsplit.DEFAULT))
    if left := sorted(set(usable.get(unsplit.DEFAULT, [])) - {*names}):
        problem = f"lists {len(left)} image(s) without a class mask: {', '.join(left[:5])}"
        found.append(note(voc.list_path(folder, unsplit.DEFAULT), problem, "They are left out"))
    if len(names) < unsplit.LEAST:
        problem = f"has {len(names)} image(s) with a class mask"
        found.append(error(folder, problem, "train, dev and val need one each: annotate more"))
    return lists, {unsplit.DEFAULT: names}


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
    """The splits that the folder must list: dev.txt is optional, since a part of train can be held out instead. None in
    a folder that has no such list: unsplit.py makes them.
    """
    if unsplit.is_unsplit(folder):
        return []
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

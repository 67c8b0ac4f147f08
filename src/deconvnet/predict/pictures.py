"""Which pictures are meant, and where the results of each go."""

import os
from pathlib import Path

from PIL import Image

from deconvnet.config.errors import UserError

IDENTIFIED = {"BUFR", "GRIB", "HDF5", "MPEG"}  # formats that Pillow recognises and cannot decode
PICTURES = ("mask.png", "overlay.png")  # what each result's name ends in; a further run does not take them for yours
PROBABILITIES = "probabilities.npz"


def find(given: list[Path], out: Path | None) -> dict[Path, Path]:
    """{picture: the folder of its results} of files, and of folders with every picture below them.

    Results lie beside their picture, or in `out`, where a given folder keeps its structure. Raises UserError for a
    folder without a picture.
    """
    found = {}
    for path in given:
        if path.is_dir():
            inside = below(path, out)
            if not inside:
                raise UserError(f"{path} holds no picture that Pillow opens: name another folder, or the files.")
            found |= {file: out / file.parent.relative_to(path) if out else file.parent for file in inside}
        else:
            found[path] = out or path.parent
    return found


def below(folder: Path, out: Path | None) -> list[Path]:
    """The pictures in a folder and its subfolders, by name; not hidden ones, nor results of an earlier run."""
    Image.init()
    kinds = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN.keys() - IDENTIFIED}
    results, found = out and os.path.realpath(out), []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f[0] != "." and os.path.realpath(Path(root, f)) != results)
        pictures = [Path(root, name) for name in sorted(names) if name[0] != "." and Path(name).suffix.lower() in kinds]
        made = {f"{path.stem}_{end}" for path in pictures for end in PICTURES}
        found += [path for path in pictures if path.name not in made]
    return found


def result_paths(folders: dict[Path, Path], endings: tuple[str, ...] = PICTURES) -> dict[Path, tuple[Path, ...]]:
    """{picture: the paths of its results} from {picture: their folder}, each picture once. Raises UserError if a result
    would replace another one, or a picture.
    """
    given, results, source_of = {os.path.realpath(path) for path in folders}, {}, {}
    for path, folder in folders.items():
        targets = tuple(folder / f"{path.stem}_{end}" for end in endings)
        for target in targets:
            real = os.path.realpath(target)
            other = source_of.setdefault(real, path)
            if real in given:
                raise UserError(f"The result of {path} would replace {target}, which is given too: leave one out.")
            if os.path.realpath(other) != os.path.realpath(path):
                raise UserError(f"{other} and {path} have one result, {target}: rename one, or give it another --out.")
        results.setdefault(source_of[os.path.realpath(targets[0])], targets)
    return results

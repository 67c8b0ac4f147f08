"""The images of val for a reader without a run: icon scenes are a function of their seed, so they can be made again."""

import shutil
from pathlib import Path

from deconvnet.config import paths
from deconvnet.config.errors import UserError
from deconvnet.config.schema import Params
from deconvnet.data import icon_scenes, voc
from deconvnet.utils import resume
from deconvnet.utils.files import fingerprint


def val_folder(settings: Params) -> Path:
    """A folder in VOC layout with val: data/voc of this run or, without one, the same scenes generated.

    Raises UserError if there is neither.
    """
    return paths.VOC if voc.list_path(paths.VOC, "val").is_file() else generated_val(settings)


def generated_val(settings: Params) -> Path:
    """The icon scenes of val that the settings describe, generated once below checkpoints/.

    Raises UserError for other data.
    """
    if settings.data.source != "icons":
        raise UserError(
            f"{paths.VOC} does not exist, and val is no set of icon scenes that could be generated: make repro."
        )
    wanted = settings.icons.model_dump() | {"train": 0, "dev": 0}
    folder = resume.CHECKPOINTS / f"val-{fingerprint(wanted)[:8]}"
    if not folder.is_dir():
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        icon_scenes.generate(partial, **wanted)
        partial.rename(folder)
    return folder

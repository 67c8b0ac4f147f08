"""What is checked before DVC starts: settings, data, weights. And the list of what the data stage will read."""

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from deconvnet.config import machine, params
from deconvnet.config.errors import UserError
from deconvnet.config.paths import ROOT
from deconvnet.config.schema import SOLVERS, Params
from deconvnet.data import classes, sources, unsplit, validate, voc
from deconvnet.utils.files import fingerprint, write_json

DEFAULT = "icons"


def settings_of(profile: str, data: Path | None, seed: int | None = None) -> dict:
    """The default profile is params.yaml as it is, others are composed from conf/. Raises UserError if unsound.

    With `seed` k the seeds of training are 100 k and those of conf/voc2012.yaml together: a separate run with a name of
    its own.
    """
    if profile == DEFAULT and data:
        raise UserError(f"DATA goes with PROFILE=voc: the default profile generates its data and would ignore {data}.")
    settings = params.read_yaml(params.PARAMS) if profile == DEFAULT and seed is None else params.compose(profile)
    if data:
        settings = params.merge(settings, {"data": {"source": "folder", "root": str(data.expanduser().resolve())}})
    if seed is not None:
        solvers = {name: {"seed": settings[name]["seed"] % 100 + 100 * seed} for name in SOLVERS}
        settings = params.merge(settings, solvers | {"profile": f"{profile}-seed{seed}"})
    return settings


def check(settings: dict) -> Params:
    """Finds what would otherwise fail after a while. Raises UserError."""
    name = "params.yaml" if settings.get("profile") == DEFAULT else f"Profile {settings.get('profile')}"
    checked = params.validate(settings, name)
    machine.check()
    for solver in (getattr(checked, section) for section in SOLVERS):
        if solver.iterations and solver.micro_batches > 1:  # otherwise one process trains
            machine.check_micro_batches(solver.micro_batches, machine.processes())
    if checked.data.source == "folder":
        if not checked.data.root:
            raise UserError(f"PROFILE={checked.profile} needs a folder in VOC layout: add DATA=/path/to/folder.")
        sources.split_folder(ROOT / checked.data.root, dev=checked.data.dev, seed=checked.data.seed)
    if checked.data.source == "voc2012" and not checked.data.root:
        raise UserError("data.source voc2012 needs data.root, the folder of its downloads.")
    if test := checked.data.test_root:
        check_test_list(ROOT / test)
    check_weights(checked)
    forest = checked.proposals.forest
    if forest and "://" not in forest and not (ROOT / forest).is_file():
        raise UserError(f"proposals.forest: {forest} does not exist; with edges: learned none is needed.")
    return checked


def check_test_list(root: Path) -> None:
    try:
        names = voc.read_list(root, "test")
        if not names:
            raise UserError(f"{voc.list_path(root, 'test')} is empty.")
        voc.read_image(root, names[0])
        for name in names:
            if not (path := voc.image_path(root, name)).is_file():
                raise UserError(f"{path} is missing, although test.txt lists it.")
    except UserError as error:
        raise UserError(f"data.test_root: {error}") from None


def check_weights(settings: Params) -> None:
    """Reads the files of weights that the settings name, before anything else takes hours. Raises UserError."""
    from deconvnet.networks import build, caffe, weights  # late: seconds, and most runs have no such file

    def load_backbone(path: Path) -> None:
        backbone = settings.backbone.model_copy(update={"path": path})
        weights.start_from_vgg16(build.make_deconvnet(settings).encoder, backbone)

    files = (
        (settings.backbone.path, load_backbone),
        (settings.weights.deconvnet.path, lambda path: caffe.load(build.make_deconvnet(settings), path)),
        (settings.weights.fcn8s.path, lambda path: caffe.load(build.make_fcn(settings), path)),
    )
    for path, load in files:
        if path and not (ROOT / path).is_file():
            raise UserError(f"{path} does not exist: put the file there, or name another path in conf/.")
        if path:
            load(ROOT / path)


def list_source(settings: Params, path: Path) -> None:
    """Writes data/source.json, on which the data stage depends: the source, and the sizes and times of its files.

    Downloads have checksums of their own, and icon scenes read no file. For a folder, and for the test photographs, it
    lists what the splits name, so that other files in the folder do not matter.
    """
    data, files = settings.data, None
    if data.source == "folder":
        root = ROOT / data.root
        kinds = [voc.image_path, voc.labels_path, voc.instances_path][: 2 + voc.has_instances(root)]
        if splits := validate.given_splits(root):
            files = list_files(root, splits, kinds)
        else:
            names = list(itertools.chain(*unsplit.split(root, data.seed).values()))
            files = list_files(root, [], kinds, names)
    elif data.test_root:
        files = list_files(ROOT / data.test_root, ["test"], [voc.image_path])
    write_json(path, {"source": data.source, "files": files})


def list_files(root: Path, splits: list[str], kinds: list[Callable[[Path, str], Path]], names: Sequence = ()) -> dict:
    """How many files there are, and a fingerprint: the class list if there is one, the lists of `splits`, and of each
    of their ids and `names` a file per kind.
    """
    files = [voc.list_path(root, split) for split in splits]
    names = [*(name for split in splits for name in voc.read_list(root, split)), *names]
    files += [path(root, name) for name in names for path in kinds]
    files += [path] if (path := classes.file_of(root)) else []
    stats = [(str(f.relative_to(root)), s.st_size, s.st_mtime_ns) for f in files for s in [os.stat(f)]]
    return {"count": len(files), "fingerprint": fingerprint(str(root), stats)}

"""Segments your own pictures with the trained networks.

    python -m deconvnet.predict photo.jpg                         EDeconvNet+CRF, the paper's best
    python -m deconvnet.predict photographs --out results         every picture below a folder, its structure kept
    python -m deconvnet.predict --method fcn8s --out . *.jpg
    python -m deconvnet.predict photo.jpg --weights https://…/icons.safetensors --sha256 …

Writes <name>_mask.png (a palette PNG) and <name>_overlay.png beside each picture, or into --out; with --probabilities
<name>_probabilities.npz too: float16 `probabilities` (classes, height, width), and the names of the `classes`.

A picture with more than 500 px on its longer side is segmented at that size, which bounds time and memory: its
probabilities have that size, its mask and overlay the picture's own.

Without --profile and --weights it takes the networks in models/, which make repro trains, or those that come with the
project, weights/icons.safetensors. They are trained on icon scenes, not on photographs.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from deconvnet.config import machine
from deconvnet.config.errors import UserError, exit_on_user_error
from deconvnet.data import download, voc
from deconvnet.data.reading import printable
from deconvnet.evaluation.methods import METHODS
from deconvnet.predict import pictures, predictor, results, trained


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deconvnet.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pictures", nargs="+", type=Path, metavar="photo.jpg", help="pictures, and folders of them")
    parser.add_argument("--method", choices=METHODS, default="edeconvnet_crf")
    parser.add_argument("--out", type=Path, help="folder of the results; default: beside each picture")
    parser.add_argument("--probabilities", action="store_true", help="write them too")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: cuda where there is one")
    networks = parser.add_mutually_exclusive_group()
    networks.add_argument("--profile", metavar="NAME", help="the networks and settings of the run in runs/NAME")
    networks.add_argument("--weights", metavar="FILE", help="a weights file of make release, or its address")
    parser.add_argument("--sha256", metavar="HEX", help="what the weights file's SHA-256 must be")
    return parser.parse_args()


@exit_on_user_error()
def main() -> None:
    given = arguments()
    endings = pictures.PICTURES + (pictures.PROBABILITIES,) * given.probabilities
    found = pictures.result_paths(pictures.find(given.pictures, given.out), endings)
    if given.out:
        try:
            given.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {given.out} cannot be made a folder ({error.strerror}).") from None
    if given.device:
        machine.use_device(given.device)
    predict = predictor.Predictor(given.method, weights=given.weights, sha256=given.sha256, profile=given.profile)
    for line in notes(predict, list(found), given.sha256):
        print(printable(line), file=sys.stderr)
    failed = 0
    for path, targets in tqdm(found.items(), unit="picture", disable=None if len(found) > 1 else True):
        try:
            tqdm.write(printable(results.segment(predict, path, *targets)))
            sys.stdout.flush()
        except UserError as error:  # the next one may be sound
            tqdm.write(printable(error), file=sys.stderr)
            failed += 1
    if failed:
        sys.exit(f"{failed} of {len(found)} pictures could not be segmented.")


def notes(predict: predictor.Predictor, given: list[Path], sha256: str | None) -> list[str]:
    """What should be known of the networks: which file they are of, and that they never saw a photograph."""
    said, networks = [], predict.trained
    if isinstance(networks, trained.WeightsFile):
        if networks.path == trained.SHIPPED:
            said.append(f"Networks of {networks.path}, which come with the project: there are none in models/.")
        elif sha256 is None:
            said.append(f"{networks.path} has the SHA-256 {download.checksum(networks.path, 'sha256')}.")
    if networks.settings.data.source == "icons" and not all(is_scene(path) for path in given):
        said.append("These networks were trained on icon scenes, not on photographs: expect little of them there.")
    return said


def is_scene(path: Path) -> bool:
    """Whether a picture is one of a run's own data."""
    return path.resolve().parent.parts[-3:] == ("data", "voc", voc.IMAGES)


if __name__ == "__main__":
    main()

"""Where trained networks come from: a run, or a weights file, which comes with the project, or is on disk or a server.

Both give settings, weights by the network's name, and the CRF's kernel that was selected on dev.
"""

import json
import re
from pathlib import Path

import torch
from torch import nn

from deconvnet.config import machine, params, paths
from deconvnet.config.errors import UserError
from deconvnet.config.schema import Kernel
from deconvnet.data import classes, download
from deconvnet.networks import weights
from deconvnet.predict import weights_file

SHIPPED = paths.WEIGHTS / "icons.safetensors"  # comes with the project
TRAINED = ("deconvnet", "fcn8s")  # what a run that can segment has in models/


class Run:
    """The networks of the run in a folder: the project itself, or runs/<profile>. Raises UserError."""

    def __init__(self, folder: Path):
        self.folder, self.settings = folder, params.load(folder / "params.yaml")

    def load(self, network: nn.Module, name: str) -> nn.Module:
        """`network` with its weights, on the device, in inference mode."""
        return weights.load(network, name, self.folder / "models")

    def kernel(self, method: str) -> Kernel:
        return Kernel(**self.kernels()[method])

    def kernels(self) -> dict[str, dict]:
        """{method without CRF: the kernel selected on dev}"""
        path = self.folder / "reports" / "crf.json"
        if not path.is_file():
            raise UserError(f"{path} (the CRF kernels selected on dev) does not exist: run make repro first.")
        found = json.loads(path.read_text(encoding="utf-8"))
        return {method: entry["chosen"] for method, entry in found.items()}

    def classes(self) -> classes.Classes:
        return classes.read(self.folder / "data" / "voc")

    def is_trained(self) -> bool:
        return all((self.folder / "models" / f"{name}.safetensors").is_file() for name in TRAINED)


class WeightsFile:
    """The networks of a weights file. Raises UserError."""

    def __init__(self, path: Path):
        self.path = path
        self.card, self.networks = weights_file.read(path)
        self.settings = params.validate(self.card.get("settings"), f"The card of {path}")

    def load(self, network: nn.Module, name: str) -> nn.Module:
        """`network` with its weights, in its own precision, on the device, in inference mode."""
        try:
            network.load_state_dict(self.networks.get(name, {}))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{self.path} does not hold the network {name} that its card describes: {reason}") from None
        return network.to(machine.device(), memory_format=torch.channels_last).eval()

    def kernel(self, method: str) -> Kernel:
        return Kernel(**self.card["kernels"][method])

    def classes(self) -> classes.Classes:
        names, colours = self.card["classes"]["names"], self.card["classes"]["colours"]
        return classes.Classes(tuple(names), tuple(map(tuple, colours)))


def find(source: str | Path | None = None, sha256: str | None = None, profile: str | None = None) -> Run | WeightsFile:
    """The networks of the weights file `source`, or of the run of `profile`; without either, those of this folder's
    run, or those that come with the project if it has none. Raises UserError.
    """
    if source is not None:
        return WeightsFile(fetch(source, sha256))
    if sha256 is not None:
        raise UserError("A SHA-256 is of a weights file: name the file too (--weights).")
    if profile is not None:
        return Run(run_folder(profile))
    run = Run(paths.ROOT)
    return run if run.is_trained() or not SHIPPED.is_file() else WeightsFile(SHIPPED)


def run_folder(profile: str) -> Path:
    """runs/<profile>, or the project itself for its own profile. Raises UserError."""
    runs = paths.ROOT / "runs"
    if (runs / profile / "params.yaml").is_file():
        return runs / profile
    if profile == params.load(paths.ROOT / "params.yaml").profile:
        return paths.ROOT
    known = ", ".join(sorted(path.parent.name for path in runs.glob("*/params.yaml"))) or "none"
    raise UserError(f"There is no run {runs / profile}: make repro PROFILE={profile} makes it. There are: {known}.")


def fetch(source: str | Path, sha256: str | None) -> Path:
    """A weights file on disk, downloaded if `source` is an address, with the SHA-256 if one is given.

    Raises UserError for another file, and for an address without a SHA-256.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UserError(f"A SHA-256 has 64 hexadecimal digits, not '{sha256}'.")

    def wrong(path: Path) -> str | None:
        found = download.checksum(path, "sha256")
        return None if found == sha256.lower() else f"its SHA-256 is {found} and should be {sha256.lower()}"

    if "://" in str(source):
        if sha256 is None:
            raise UserError(
                f"{source} is used only with its checksum: add --sha256 and the 64 digits of its README. "
                "Without one, download the file and name it here; its own is printed then."
            )
        path = Path(torch.hub.get_dir()) / "deconvnet" / f"{sha256.lower()}.safetensors"
        download.download(source, path, wrong)
        return path
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{path} is no file: name a weights file of make release, or its address.")
    if sha256 is not None and (problem := wrong(path)):
        raise UserError(f"{path} is another file than expected: {problem}. Fetch it again, or correct --sha256.")
    return path

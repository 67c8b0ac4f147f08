"""What `make release` does: packs the networks of a finished run into a weights file, with a page about them.

    python -m deconvnet.pipeline.release                    weights/icons.safetensors and weights/README.md, for git
    python -m deconvnet.pipeline.release --profile NAME     the same of another run, in runs/<NAME>/weights

Both are written only if a tensor or a number has changed: the commit alone does not make another file.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from deconvnet.config.errors import UserError, exit_on_user_error
from deconvnet.config.schema import SOLVERS, Params
from deconvnet.evaluation import experiment
from deconvnet.evaluation.methods import METHODS
from deconvnet.pipeline import provenance
from deconvnet.pipeline.preflight import DEFAULT
from deconvnet.predict import trained, weights_file
from deconvnet.utils.files import write_atomic

LIMITS = {
    "icons": "Trained on icon scenes, small generated pictures of VOC's classes, and not on photographs: on these they "
    "are of no use.",
    "folder": "Trained on a folder of photographs in VOC layout.",
    "voc2012": "Trained on VOC 2012 and SBD.",
}


def release(folder: Path) -> tuple[Path, bool]:
    """Writes the weights file of the run in `folder`, and its page; returns its path, and whether it is new.

    Raises UserError for a run without networks or numbers.
    """
    run = trained.Run(folder)
    path = folder / "weights" / f"{run.settings.profile}.safetensors"
    networks = {name: load_file(file) for name, file in model_files(folder, run.settings).items()}
    known = provenance.known(folder)
    stated = card(run, None if known.get("dirty") else known.get("commit"))  # dirty: it is not that commit's
    before = path.read_bytes() if path.is_file() else None
    if before:
        as_before = stated | {"commit": weights_file.read(path)[0].get("commit")}
        stated = as_before if weights_file.pack(networks, as_before) == before else stated
    content = weights_file.pack(networks, stated)
    page = path.with_name("README.md")
    for file, text in (path, content), (page, describe(path.name, content, stated).encode()):
        if not file.is_file() or file.read_bytes() != text:
            write_atomic(file, text)
    return path, content != before


def require_finished(folder: Path, profile: str) -> None:
    """Raises UserError unless networks and numbers are of one run, and of today's code and settings, as DVC sees it."""
    command = [sys.executable, "-m", "dvc", "status", "--json", "--with-deps", "evaluate"]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=True)
    if changed := json.loads(done.stdout):
        raise UserError(
            f"The run in {folder} is not finished, or code, settings or data have changed since (stages "
            f"{', '.join(sorted(changed))}): {advice(profile)}."
        )


def advice(profile: str) -> str:
    return f"make repro{'' if profile == DEFAULT else f' PROFILE={profile}'}, then make release"


def model_files(folder: Path, settings: Params) -> dict[str, Path]:
    """{network: its file} of a run. Raises UserError if one is missing."""
    files = {name: folder / "models" / f"{name}.safetensors" for name in weights_file.NETWORKS}
    if missing := [str(path) for path in files.values() if not path.is_file()]:
        raise UserError(f"The run has no {', '.join(missing)}: {advice(settings.profile)}.")
    return files


def card(run: trained.Run, commit: str | None) -> dict:
    """What the weights are: all that is needed to build the networks and to use them, and what they reach on val."""
    s, measured = run.settings, run.folder / "reports" / "metrics.json"
    if not measured.is_file():
        raise UserError(f"{measured} does not exist, the run is not finished: {advice(s.profile)}.")
    metrics = json.loads(measured.read_text(encoding="utf-8"))
    return {
        "profile": s.profile,
        "data": s.data.source,
        "classes": {"names": run.classes().names, "colours": run.classes().colours},
        "seeds": {name: getattr(s, name).seed for name in SOLVERS},
        "experiment": experiment.experiment_id(s, run.folder),
        "commit": commit,
        "mean_iou": {method: metrics[method]["mean_iou"] for method in METHODS},
        "licence": "MIT",
        "limits": LIMITS[s.data.source],
        "settings": s.model_dump(mode="json"),
        "kernels": run.kernels(),
    }


def describe(name: str, content: bytes, card: dict) -> str:
    """The page beside the file."""
    seeds = ", ".join(f"{section} {card['seeds'][section]}" for section in SOLVERS)
    rows = [f"| {title} | {100 * card['mean_iou'][method]:.1f} |" for method, title in METHODS.items()]
    return "\n".join([
        f"# {name}", "",
        "<!-- Written by make release. -->", "",
        f"DeconvNet, FCN-8s and the boundary detector of the profile `{card['profile']}`, in one safetensors file of "
        f"{len(content) / 1e6:.1f} MB. The convolutions of DeconvNet and FCN-8s are in float16.", "",
        f"**{card['limits']}**", "",
        "| | |", "|---|---|",
        f"| experiment id | {card['experiment']} |",
        f"| seeds | {seeds} |",
        f"| trained at commit | {card['commit'] or 'unknown'} |",
        f"| licence | {card['licence']} |",
        f"| SHA-256 | {hashlib.sha256(content).hexdigest()} |", "",
        "Mean IoU on val, in %, of the networks before rounding to float16:", "",
        "| method | mean IoU |", "|---|---|", *rows, "",
        "The card in the file's metadata has the same, and all settings. What reads it: "
        f"`python -m deconvnet.predict photo.jpg --weights {name}`, or `Predictor(weights=\"{name}\")`.", "",
    ])  # fmt: skip


@exit_on_user_error()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deconvnet.pipeline.release", description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default=DEFAULT)
    profile = parser.parse_args().profile
    folder = trained.run_folder(profile)
    require_finished(folder, profile)
    path, changed = release(folder)
    print(f"{path}: {'written' if changed else 'nothing has changed'}, {path.stat().st_size / 1e6:.1f} MB.")


if __name__ == "__main__":
    main()

"""How far a training has come, and its checkpoint on disk, from which it resumes bit by bit."""

import time
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import nn

from deconvnet.config import machine
from deconvnet.config.schema import Solver
from deconvnet.images.batches import Batches
from deconvnet.utils import resume
from deconvnet.utils.files import fingerprint


@dataclass
class Progress:
    """How far a training has come, besides its weights."""

    step: int = 0  # finished iterations; the next batch has this number
    rows: list[dict[str, float]] = field(default_factory=list)  # of the curve
    recent: list[torch.Tensor] = field(default_factory=list)  # micro-batch losses of the iterations since the last row
    best: float = 0.0  # pixel accuracy on dev; schedule "plateau"
    plateaus: int = 0


class Checkpoint:
    """Saves and restores `progress`, the `parts` (anything with a state_dict) and torch's random state.

    `folder` None: nothing is saved. Restoring changes `progress` in place.
    """

    def __init__(self, folder: Path | None, progress: Progress, parts: dict):
        self.path = folder / "state.pt" if folder else None
        self.progress, self.parts, self.saved = progress, parts, time.monotonic()

    def restore(self, device: torch.device) -> None:
        state = resume.load_checkpoint(self.path, device) if self.path else None
        if not state:
            return
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"]["cpu"].cpu())
        if "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"].cpu())
        for f in fields(Progress):
            setattr(self.progress, f.name, state[f.name])

    def save(self, at_once: bool) -> None:
        """If the last one is DECONVNET_CHECKPOINT seconds old, or `at_once`."""
        if not self.path or (not at_once and time.monotonic() - self.saved < machine.checkpoint_seconds()):
            return
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        state = vars(self.progress) | {name: part.state_dict() for name, part in self.parts.items()}
        resume.save_checkpoint(self.path, state | {"random": random})
        self.saved = time.monotonic()


def training_inputs(net: nn.Module, batches: Batches, solver: Solver, validation: Batches | None) -> dict[str, str]:
    """Fingerprints of what a training's result follows from, besides the code: a checkpoint of others is not used."""
    return {
        "settings": fingerprint(solver.model_dump(mode="json")),
        "initial weights": fingerprint(*(part for item in net.state_dict().items() for part in item)),
        "examples": fingerprint(batches.fingerprint(), validation.fingerprint() if validation else None),
    }

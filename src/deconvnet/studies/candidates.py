"""Candidates for the default's small network (studies/candidates.yaml), trained with the same operations as today's."""

import numpy as np
import pandas as pd
import torch

from deconvnet.config import params
from deconvnet.config.paths import OBJECTS, ROOT
from deconvnet.config.schema import Params
from deconvnet.data import voc
from deconvnet.images.boxes import BOX
from deconvnet.networks import build, weights
from deconvnet.networks.deconvnet import DeconvNet
from deconvnet.studies import cells
from deconvnet.studies.arms import Phase, phases
from deconvnet.training import batch_norm, loop, recipes
from deconvnet.training.examples import crop_batches, stage_table

CANDIDATES = ROOT / "studies" / "candidates.yaml"
TRAININGS = ("backbone", "stage1", "stage2")
INSIDE = 0.9  # of a proposal's area: it then shows an object's texture alone


def settings_of(name: str, today: Params) -> Params:
    """The settings of a candidate, with iterations that make its operations those of today's trainings together."""
    candidate = params.read_yaml(CANDIDATES)[name]
    changed = params.merge(today.model_dump(mode="json"), candidate.get("settings", {}))
    if (seed := candidate.get("seed")) is not None:  # as `make repro` with other seeds has them
        seeds = {part: {"seed": changed[part]["seed"] % 100 + 100 * seed} for part in TRAININGS}
        changed = params.merge(changed, seeds)
    settings = params.validate(changed, f"The candidate {name}")
    share = operations(today) / operations(settings)
    return settings.model_copy(update={part: scaled(getattr(settings, part), share) for part in TRAININGS})


def scaled(solver, share: float):
    kinds = [kind for kind in ("iterations", "proposal_iterations") if hasattr(solver, kind)]
    return solver.model_copy(update={kind: round(share * getattr(solver, kind)) for kind in kinds})


def operations(settings: Params) -> int:
    """FLOP of the backbone's training and of both stages."""
    total = sum(recipe.compute()["flops"] for recipe in recipes.backbone(settings).values())
    net = build.make_deconvnet(settings)
    return total + sum(cells.flops(net, phase) * phase.solver.iterations for phase in phases("deconvnet", settings))


def start(settings: Params, today: Params) -> DeconvNet:
    """DeconvNet with a trained encoder: the run's own where the candidate has the same, else one trained here."""
    if settings.backbone == today.backbone and settings.network == today.network:
        torch.manual_seed(settings.stage1.seed)
        return weights.initialise(build.make_deconvnet(settings), settings.weights.deconvnet)
    for recipe in recipes.backbone(settings).values():
        loop.train(recipe.net, recipe.batches["train"], recipe.solver, name=recipe.name, validation=recipe.validation())
    batch_norm.fix_batch_norm(recipe.net, recipe.for_batch_norm())
    torch.manual_seed(settings.stage1.seed)
    net = build.make_deconvnet(settings)
    net.encoder.load_state_dict(recipe.net.encoder.state_dict())
    return net


def train(name: str, today: Params) -> tuple[DeconvNet, Params, dict[str, float]]:
    """The trained network of a candidate, its settings, and the dev loss at the end of both stages."""
    settings, losses = settings_of(name, today), {}
    net, both = start(settings, today), phases("deconvnet", settings)
    if not params.read_yaml(CANDIDATES)[name].get("texture", True):
        both[1] = without_texture(both[1], settings)
    for stage, phase in zip(TRAININGS[1:], both, strict=True):
        validation = phase.batches["dev"].resampled(cells.VALIDATION, phase.solver.batch_size)
        label = f"{name}, {stage}"
        curve = loop.train(net, phase.batches["train"], phase.solver, name=label, validation=validation)
        losses[stage] = float(curve["dev_loss"].iloc[-1])
    last = both[1].batches["train"].resampled(phase.solver.bn_batches, phase.solver.bn_batch_size)
    batch_norm.fix_batch_norm(net, last)
    return net, settings, losses


def without_texture(phase: Phase, settings: Params) -> Phase:
    """Stage 2 without the negative proposals inside an object; the other negatives keep their share of the examples."""
    batches = {}
    for split in phase.batches:
        table = stage_table(2, split, settings)
        negative = table["label"] == 0
        table = table[~(negative & inside_objects(table, voc.read_objects(OBJECTS, split)))]
        table.loc[table["label"] == 0, "weight"] *= (
            settings.stage2.background_fraction / table.loc[table["label"] == 0, "weight"].sum()
        )
        batches[split] = crop_batches(recipes.split_images(split), table, settings.stage2, settings.network.size)
    return Phase(batches, settings.stage2)


def inside_objects(table: pd.DataFrame, objects: pd.DataFrame) -> np.ndarray:
    """Whether a box of `table` lies in the box of one object, by INSIDE of its area."""
    pairs = table[[*BOX, "image"]].reset_index().merge(objects[[*BOX, "image"]], on="image", suffixes=("", "_object"))
    corner, far = (np.array(pairs[[f"{side}_object" for side in sides]]) for sides in (BOX[:2], BOX[2:]))
    low, high = np.maximum(pairs[BOX[:2]], corner), np.minimum(pairs[BOX[2:]], far)
    common = (np.asarray(high) - np.asarray(low)).clip(min=0).prod(axis=1)
    area = (np.asarray(pairs[BOX[2:]]) - np.asarray(pairs[BOX[:2]])).prod(axis=1)
    inside = pd.Series(common / area >= INSIDE).groupby(pairs["index"].to_numpy()).any()
    return inside.reindex(table.index, fill_value=False).to_numpy()

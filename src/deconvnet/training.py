"""One training loop for the backbone, both stages and FCN-8s, on Lightning Fabric.

A fixed number of updates, never wall-clock. The batch is run in `accumulate` parts, as the release does (8 × 8): batch
norm sees one part, the loss is the mean over the non-void pixels of each part, averaged over the parts. A GPU takes
several parts at once (DECONVNET_PARTS), several processes share them (DECONVNET_PROCESSES): what is computed stays the
same, but for the order of the sums and for what dropout draws.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import pandas as pd
import torch
from dvclive import Live
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from deconvnet import checkpoints, machine
from deconvnet.examples import Batches
from deconvnet.files import digest
from deconvnet.imports import without
from deconvnet.params import Solver
from deconvnet.paths import CURVES
from deconvnet.solver import loss_of, make_optimizer, rate
from deconvnet.voc import VOID

with without("torchmetrics"):  # Fabric asks for its version alone, and it takes seconds
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

ENOUGH = 4  # processes, to cut 64 crops of 224 px while a fast GPU makes an update of the paper's network


def loader(batches: Batches, start: int = 0) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """The batches from number `start` on. Torch's global random state is left alone.

    They are cut on the CPU, for a GPU by processes beside it. Where these are too few, a GPU that holds all images cuts
    its crops itself; to start that work costs the process that trains a sixth of an update of the paper's network.
    """
    device, random = machine.device(), torch.Generator()
    if device.type == "cuda" and machine.workers() < ENOUGH and batches.cut and batches.images.fits(device):
        return batches.on(device, start)
    order = range(start, len(batches))
    return DataLoader(
        batches, None, sampler=order, num_workers=machine.workers(), pin_memory=device.type == "cuda", generator=random
    )


@contextmanager
def live_curve(name: str) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A `log` for `train` that writes reports/curves/<name> with DVCLive, for `dvc plots`."""
    if machine.rank():
        yield lambda step, row: None
        return
    checkpoints.hold("kernel")  # an orphan's rows must not come between these
    with Live(str(CURVES / name), dvcyaml=None, save_dvc_exp=False) as live:

        def log(step: int, row: dict[str, float]) -> None:
            live.step = step
            for key, value in row.items():
                if key != "step":
                    live.log_metric(key, value)
            live.make_summary()

        yield log


@dataclass
class Progress:
    """How far a training has come, beside its weights."""

    step: int = 0  # updates done: the next batch is number `step`
    rows: list[dict[str, float]] = field(default_factory=list)  # of the curve
    recent: list[torch.Tensor] = field(default_factory=list)  # the parts' losses of each update since the last row
    best: float = 0.0  # of the schedule "plateau"
    drops: int = 0


def made_from(net: nn.Module, batches: Batches, settings: Solver, watch: Batches | None) -> dict[str, str]:
    """What a training's result follows from, beside the code: a checkpoint of other things is not continued."""
    return {
        "settings": digest(settings.model_dump(mode="json")),
        "starting weights": digest(*(part for item in net.state_dict().items() for part in item)),
        "examples": digest(batches.made_from(), watch.made_from() if watch else None),
    }


def state_of(progress: Progress, parts: dict) -> dict:
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    return vars(progress) | {name: part.state_dict() for name, part in parts.items()} | {"random": random}


def restore(state: dict, parts: dict) -> Progress:
    """Puts `state_of`'s state back into `parts` and torch's random numbers; returns the progress."""
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["random"]["cpu"].cpu())
    if "cuda" in state["random"]:
        torch.cuda.set_rng_state(state["random"]["cuda"].cpu())
    return Progress(**{f.name: state[f.name] for f in fields(Progress)})


@contextmanager
def norms_by_part(net: nn.Module, parts: int) -> Iterator[None]:
    """Inside, batch norm in training takes a batch as so many parts that come one by one, each with its statistics."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d) and parts > 1]
    for norm in norms:
        one = norm.forward  # a GPU's kernels are few for a part and slow to start: all other layers run once
        norm.forward = lambda x, one=one: torch.cat([one(part) for part in x.chunk(parts)])
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward  # the method of its class is there again


def losses_of(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of each part, (P,): images (P, n, 3, H, W) and labels (P, n, …) go through `model` at once."""
    with norms_by_part(model, len(images)):
        scores = model(images.flatten(0, 1).contiguous(memory_format=torch.channels_last))
    parts = zip(scores.chunk(len(images)), labels, strict=True)
    return torch.stack([loss_of(part, truth) for part, truth in parts])


class Ranks(DDPStrategy):
    """Fabric's DDP among processes that torchrun has started."""

    def _configure_launcher(self) -> None:
        """None is needed, and Fabric refuses to work in a notebook with the one that it would choose."""


def train(
    net: nn.Module,
    batches: Batches,
    settings: Solver,
    *,
    watch: Batches | None = None,
    log: Callable[[int, dict[str, float]], None] = lambda step, row: None,
    points: int = 50,
) -> pd.DataFrame:
    """Trains `net` in place; returns its curve: step, loss (mean since the last row), rate, dev_loss at some rows.

    `watch` holds dev batches whose loss is shown beside; only the schedule "plateau", which needs it, decides by it:
    the rate drops to a tenth when the pixel accuracy there is not above its best. `log` gets each row as it is made.
    A stage that was killed goes on from its last checkpoint and ends with the same weights and rows, bit by bit.
    Processes that torchrun started share each batch, the part k going to rank k mod their number, and all end with the
    same weights; rank 0 keeps the checkpoints, with which any number of processes goes on.
    Raises FloatingPointError as soon as a row's loss is not finite, UserError if the parts cannot be shared evenly.
    """
    if settings.schedule == "plateau" and watch is None:
        raise ValueError("the schedule plateau needs dev batches to watch")
    device, world, rank = machine.device(), machine.world(), machine.rank()
    machine.check_share(settings.accumulate, world)
    # Running statistics need no broadcast: training reads none, and `fix_batch_norm` makes them anew.
    strategy = Ranks(broadcast_buffers=False) if world > 1 else "auto"
    fabric = Fabric(accelerator=device.type, devices=world, strategy=strategy, precision=machine.precision())
    fabric.launch()
    net = net.to(memory_format=torch.channels_last).train()
    place = None if rank else checkpoints.claim("Training", lambda: made_from(net, batches, settings, watch))
    place = fabric.broadcast(place)  # the others look at what is left there when rank 0 has said what of it counts
    model, optimizer = fabric.setup(net, make_optimizer(net, settings))
    so_far = Progress()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, settings, so_far.drops))
    parts_kept = {"net": net, "optimizer": optimizer, "schedule": schedule}
    if place and (state := checkpoints.load(place / "state.pt", device)):
        so_far = restore(state, parts_kept)
        for row in so_far.rows:
            log(row["step"], row)
    every, saved, at_once = max(settings.updates // points, 1), time.monotonic(), machine.parts(settings.accumulate)
    progress = tqdm(
        loader(batches, so_far.step), initial=so_far.step, total=settings.updates, desc="training", unit="update",
        mininterval=1,
    )  # fmt: skip
    for step, (images, labels) in enumerate(progress, start=so_far.step + 1):
        images, labels = fabric.to_device((images, labels))
        optimizer.zero_grad()
        images, labels = (part.unflatten(0, (settings.accumulate, -1)) for part in (images, labels))
        losses = torch.zeros(settings.accumulate, device=device)
        for first in range(rank, settings.accumulate, world * at_once):
            some = slice(first, min(first + world * at_once, settings.accumulate), world)
            if world > 1:  # dropout is the parts' own, whoever runs them, now or after a kill
                torch.manual_seed((settings.seed * settings.updates + step) * settings.accumulate + first)
            with fabric.no_backward_sync(model, enabled=some.stop < settings.accumulate):
                found = losses_of(model, images[some], labels[some]) / settings.accumulate
                fabric.backward(world * found.sum())  # DDP takes the mean over the ranks
            losses[some] = found.detach()
        so_far.recent.append(fabric.all_reduce(losses, reduce_op="sum"))  # now: a checkpoint holds those of all ranks
        optimizer.step()
        used = schedule.get_last_lr()[0] / schedule.base_lrs[0]
        if settings.schedule == "plateau" and step % settings.look == 0:
            _, accuracy = fabric.broadcast(watched(model, watch))
            so_far.best, so_far.drops = max(so_far.best, accuracy), so_far.drops + (accuracy <= so_far.best)
        schedule.step()
        so_far.step = step
        if step % every == 0 or step == settings.updates:
            row = {"step": step, "loss": float(torch.cat(so_far.recent).sum()) / len(so_far.recent)}
            row["rate"] = settings.lr * used
            so_far.recent = []
            if not math.isfinite(row["loss"]):
                raise FloatingPointError(f"The loss is {row['loss']} after {step} updates: lower the learning rate.")
            if watch is not None and (len(so_far.rows) % 5 == 4 or step == settings.updates):
                row["dev_loss"], _ = watched(model, watch)
            progress.set_postfix(loss=f"{row['loss']:.3f}")
            log(step, row)
            so_far.rows.append(row)
        due = time.monotonic() - saved >= machine.checkpoint_seconds() or step == settings.updates
        if place and due and rank == 0:
            checkpoints.save(place / "state.pt", state_of(so_far, parts_kept))
            saved = time.monotonic()
    return pd.DataFrame(so_far.rows)


@torch.no_grad()
def watched(model: nn.Module, watch: Batches) -> tuple[float, float]:
    """Mean loss and pixel accuracy over dev batches, with batch statistics as in training; running ones stay."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    device, losses, right = machine.device(), [], []
    for images, labels in loader(watch):
        scores, labels = model(images.to(device)), labels.to(device)
        losses.append(loss_of(scores, labels))
        right.append((scores.argmax(dim=1) == labels)[labels != VOID].float().mean())
    for norm in norms:
        norm.track_running_stats = True
    return float(torch.stack(losses).mean()), float(torch.stack(right).nanmean())


@torch.no_grad()
def fix_batch_norm(net: nn.Module, batches: Batches) -> None:
    """Replaces the running statistics by the average over `batches` (501 of 28 in the release, section 4), if any."""
    net.eval()
    if len(batches) == 0:
        return
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's cumulative average
    net.train()
    for images, _ in tqdm(
        loader(batches), total=len(batches), desc="batch-norm statistics", unit="batch", mininterval=1
    ):
        net(images.to(machine.device(), memory_format=torch.channels_last))
    net.eval()


def flops_per_update(net: nn.Module, batches: Batches, accumulate: int = 1) -> int:
    """Floating-point operations of forward and backward over one batch, counted by torch on a copy of `net`.

    One of the `accumulate` parts is run, as training runs them one by one: it is that part that fits the device.
    """
    net, (images, labels) = copy.deepcopy(net), batches[0]
    device, size = next(net.parameters()).device, len(images) // accumulate
    with FlopCounterMode(display=False) as counter:
        loss_of(net(images[:size].to(device)), labels[:size].to(device)).backward()
    return accumulate * counter.get_total_flops()

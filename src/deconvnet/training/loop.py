"""One training loop for the boundary detector, the backbone, both stages and FCN-8s, on Lightning Fabric.

A fixed number of iterations, never wall-clock. A batch runs as `micro_batches`, as in the release (8 × 8 images): each
has batch-norm statistics of its own; the loss is the mean over its non-void pixels, averaged over the micro-batches.
A GPU runs several of them together (DECONVNET_MICRO_BATCHES), and several processes share them (DECONVNET_PROCESSES):
the result is the same up to the order of sums and the random numbers of dropout.
"""

import copy
import math

import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from deconvnet.config import machine
from deconvnet.config.schema import Solver
from deconvnet.data.voc import VOID
from deconvnet.images.batches import Batches
from deconvnet.training.batch_norm import ghost_batch_norm
from deconvnet.training.checkpoint import Checkpoint, Progress, training_inputs
from deconvnet.training.curve import Log
from deconvnet.training.data_loading import loader
from deconvnet.training.solver import lr_factor, make_optimizer, mean_cross_entropy
from deconvnet.utils import resume


def train(
    net: nn.Module,
    batches: Batches,
    solver: Solver,
    *,
    name: str = "training",
    validation: Batches | None = None,
    log: Log = lambda row: None,
    num_rows: int = 50,
) -> pd.DataFrame:
    """Trains `net` in place; returns its curve: step, loss (mean since the last row), lr, and dev_loss in some rows.

    `validation` holds batches of dev, whose loss is shown; the schedule "plateau" needs it, and drops the learning rate
    to a tenth when the pixel accuracy there does not exceed its best. `log` gets each row as it is made. `name` tells
    the trainings of one stage apart: an interrupted one resumes from its last checkpoint and ends with the same weights
    and rows, bit by bit. Processes started by torchrun share each batch, micro-batch k going to rank k mod their
    number; all end with the same weights, and any number of processes can resume.

    Raises FloatingPointError when a row's loss is not finite, UserError if the micro-batches cannot be shared evenly.
    """
    if solver.schedule == "plateau" and validation is None:
        raise ValueError("the schedule plateau needs validation batches")
    fabric, device = make_fabric(solver), machine.device()
    net = net.to(memory_format=torch.channels_last).train()
    folder = None
    if fabric.is_global_zero:
        folder = resume.resume_dir(name, lambda: training_inputs(net, batches, solver, validation))
    folder = fabric.broadcast(folder)  # the other ranks read the checkpoint once rank 0 has found it valid
    model, optimizer = fabric.setup(net, make_optimizer(net, solver))
    progress = Progress()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, solver, progress.plateaus))
    checkpoint = Checkpoint(folder, progress, {"net": net, "optimizer": optimizer, "scheduler": scheduler})
    checkpoint.restore(device)
    for row in progress.rows:
        log(row)
    row_every = max(solver.iterations // num_rows, 1)
    steps = tqdm(
        loader(batches, progress.step), initial=progress.step, total=solver.iterations, desc="training",
        unit="iteration", mininterval=1,
    )  # fmt: skip
    for images, labels in steps:
        progress.recent.append(iterate(fabric, model, optimizer, images, labels, solver, progress.step + 1))
        progress.step += 1
        last = progress.step == solver.iterations
        lr = solver.lr * (scheduler.get_last_lr()[0] / scheduler.base_lrs[0])
        if solver.schedule == "plateau" and progress.step % solver.eval_every == 0:
            _, accuracy = fabric.broadcast(evaluate_batches(model, validation))
            progress.plateaus += accuracy <= progress.best
            progress.best = max(progress.best, accuracy)
        scheduler.step()
        if progress.step % row_every == 0 or last:
            row = finish_row(progress, lr)
            if validation is not None and (len(progress.rows) % 5 == 4 or last):
                row["dev_loss"], _ = evaluate_batches(model, validation)
            steps.set_postfix(loss=f"{row['loss']:.3f}")
            log(row)
            progress.rows.append(row)
        if fabric.is_global_zero:
            checkpoint.save(at_once=last)
    return pd.DataFrame(progress.rows)


def make_fabric(solver: Solver) -> Fabric:
    world_size = machine.world_size()
    machine.check_micro_batches(solver.micro_batches, world_size)
    # Buffers need no broadcast: training does not read running statistics, and `fix_batch_norm` makes them anew.
    strategy = DDPStrategy(broadcast_buffers=False) if world_size > 1 else "auto"
    devices, nodes = machine.local_world_size(), machine.nodes()
    fabric = Fabric(
        accelerator=machine.device().type, devices=devices, num_nodes=nodes, strategy=strategy,
        precision=machine.precision(),
    )  # fmt: skip
    fabric.launch()
    return fabric


def iterate(fabric: Fabric, model: nn.Module, optimizer, images, labels, solver: Solver, step: int) -> torch.Tensor:
    """One iteration: forward, backward and update. Returns the loss of each micro-batch, (M,), on every rank."""
    total, world_size, rank = solver.micro_batches, fabric.world_size, fabric.global_rank
    images, labels = (part.unflatten(0, (total, -1)) for part in fabric.to_device((images, labels)))
    together = world_size * machine.micro_batches_at_once(total)
    losses = torch.zeros(total, device=images.device)
    optimizer.zero_grad()
    for first in range(rank, total, together):
        mine = slice(first, min(first + together, total), world_size)
        if world_size > 1:  # dropout belongs to the micro-batch, whichever rank runs it, and after a kill too
            torch.manual_seed((solver.seed * solver.iterations + step) * total + first)
        with fabric.no_backward_sync(model, enabled=mine.stop < total):
            part = micro_batch_losses(model, images[mine], labels[mine]) / total
            fabric.backward(world_size * part.sum())  # DDP averages over the ranks
        losses[mine] = part.detach()
    losses = fabric.all_reduce(losses, reduce_op="sum")
    optimizer.step()
    return losses


def micro_batch_losses(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of each micro-batch, (M,): images (M, n, 3, H, W) and labels (M, n, …) run through `model` together."""
    with ghost_batch_norm(model, len(images)):
        scores = model(images.flatten(0, 1).contiguous(memory_format=torch.channels_last))
    pairs = zip(scores.chunk(len(images)), labels, strict=True)
    return torch.stack([mean_cross_entropy(part, ground_truth) for part, ground_truth in pairs])


def finish_row(progress: Progress, lr: float) -> dict[str, float]:
    """The curve's next row; raises FloatingPointError if its loss is not finite."""
    row = {"step": progress.step, "loss": float(torch.cat(progress.recent).sum()) / len(progress.recent), "lr": lr}
    progress.recent = []
    if not math.isfinite(row["loss"]):
        raise FloatingPointError(f"The loss is {row['loss']} after {row['step']} iterations: lower the learning rate.")
    return row


@torch.no_grad()
def evaluate_batches(model: nn.Module, batches: Batches) -> tuple[float, float]:
    """Mean loss and pixel accuracy over batches, with batch statistics as in training; running ones do not change."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    device, losses, accuracies = machine.device(), [], []
    for images, labels in loader(batches):
        scores, labels = model(images.to(device)), labels.to(device)
        losses.append(mean_cross_entropy(scores, labels))
        accuracies.append((scores.argmax(dim=1) == labels)[labels != VOID].float().mean())
    for norm in norms:
        norm.track_running_stats = True
    return float(torch.stack(losses).mean()), float(torch.stack(accuracies).nanmean())


def flops_per_iteration(net: nn.Module, batches: Batches, micro_batches: int = 1) -> int:
    """Floating-point operations of forward and backward over a batch, counted by torch on a copy of `net`: the mean
    over `batches`, since those of whole images differ in size.

    Only one of the micro-batches is run, since it is what fits the device, and only one batch of each size.
    """
    net, counted, total = copy.deepcopy(net), {}, 0
    device = next(net.parameters()).device
    for number in range(len(batches)):
        images, labels = batches[number]
        size = len(images) // micro_batches
        if images.shape not in counted:
            with FlopCounterMode(display=False) as counter:
                mean_cross_entropy(net(images[:size].to(device)), labels[:size].to(device)).backward()
            counted[images.shape] = micro_batches * counter.get_total_flops()
        total += counted[images.shape]
    return total // len(batches)

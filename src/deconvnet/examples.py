"""What the networks are trained on: batches cut on the fly from the images, each drawn from (seed, step) alone.

Stage 1 (section 4): the box of each annotated object; only that object keeps its class. Stage 2: proposals that
overlap an object; all classes kept. The backbone: crops of both kinds with one class each. FCN-8s: whole images.
A training example is a row of a table of boxes; crops are never stored.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from deconvnet import boxes
from deconvnet.cutting import Cuts, to_device
from deconvnet.errors import UserError
from deconvnet.files import digest
from deconvnet.params import Backbone, Crops, Fcn, Params
from deconvnet.paths import OBJECTS
from deconvnet.pixels import Images
from deconvnet.proposals import load_proposals, overlaps
from deconvnet.voc import VOID

BOX = ["x1", "y1", "x2", "y2"]


def only_object(labels: np.ndarray, instances: np.ndarray, instance: int) -> np.ndarray:
    """Stage 1's rule: this object keeps its class, void stays void, every other pixel becomes background."""
    return np.where((instances == instance) | (labels == VOID), labels, 0).astype(np.uint8)


def stage_table(stage: int, split: str, params: Params) -> pd.DataFrame:
    """The examples of a split with the share of the draws, `weight`, that each of them gets.

    Stage 1: annotated objects. Stage 2: proposals, of which some may overlap no object (label 0).
    """
    objects = pd.read_csv(OBJECTS).query("split == @split")
    if stage == 1:
        return weighted(objects, params.stage1.balance)
    iou = params.stage2.iou
    windows = overlapping(load_proposals(split), objects, iou, params.inference.windows)
    hits, misses = windows.query("label > 0"), windows.query("label == 0")
    if hits.empty:
        raise UserError(f"No proposal of {split} overlaps an object by stage2.iou = {iou}: lower it.")
    share = params.stage2.misses if len(misses) else 0
    hits, misses = weighted(hits, params.stage2.balance), weighted(misses, balance=0)
    hits["weight"] *= 1 - share
    misses["weight"] *= share
    return pd.concat([hits, misses] if share else [hits], ignore_index=True)


def weighted(table: pd.DataFrame, balance: float) -> pd.DataFrame:
    """`table` with `weight`, of sum 1: an example of a class of n has n^-balance. So with 0 each row is drawn as often,
    with 1 each class, which is what repeating the examples of rare classes comes to.
    """
    weight = table.groupby("label")["label"].transform("size") ** -float(balance)
    return table.assign(weight=weight / weight.sum())


def overlapping(proposals: dict[str, np.ndarray], objects: pd.DataFrame, iou: float, windows: int) -> pd.DataFrame:
    """Proposals that overlap an object by `iou`, with the label of the object they overlap most; and those among the
    best `windows`, which inference will look at, that overlap none so: they get label 0.
    """
    rows = []
    for name, group in objects.groupby("image"):
        overlap = overlaps(proposals[name][:, :4], group[BOX].to_numpy())
        if len(overlap) == 0:
            continue
        label = np.where(overlap.max(axis=1) >= iou, group["label"].to_numpy()[overlap.argmax(axis=1)], 0)
        kept = (label > 0) | (np.arange(len(label)) < windows)
        boxes = pd.DataFrame(proposals[name][kept, :4].astype(int), columns=BOX)
        rows.append(boxes.assign(image=name, instance=0, label=label[kept]))
    if not rows:
        return pd.DataFrame(columns=[*BOX, "image", "instance", "label"])
    return pd.concat(rows, ignore_index=True)


class Batches(Dataset):
    """Item `step` is one training batch, a function of (seed, step) alone: any worker may make any of them.

    Examples are drawn with replacement, by the column `weight` of the table if it has one. `make` gives one of them;
    `cut`, where there is one, all of a batch on a device, to one grey level.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        batch: int,
        steps: int,
        seed: int,
        make: Callable,
        images: Images | None = None,
        cut: Callable | None = None,
    ):
        self.table, self.batch, self.steps, self.seed, self.make, self.images = table, batch, steps, seed, make, images
        self.cut = cut
        self.weights = table["weight"] / table["weight"].sum() if "weight" in table else None

    def like(self, steps: int, batch: int) -> "Batches":
        """Other draws of the same kind: for batch-norm statistics, or to watch the loss on dev."""
        other = copy.copy(self)
        other.steps, other.batch, other.seed = steps, batch, self.seed + 1000
        return other

    def made_from(self) -> str:
        """A hash over what the batches depend on, beside the code and the settings."""
        images = self.images.made_from() if self.images else None
        return digest(self.table, self.batch, self.steps, self.seed, images)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """float (N, 3, s, s) RGB in 0–255 and int64 labels, (N, s, s) or, for the backbone, (N,)."""
        picked, rng = self.draw(step)
        made = [self.make(row, rng) for row in picked.itertuples()]
        images, labels = (np.stack(part) for part in zip(*made, strict=True))
        images = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        return images, torch.from_numpy(labels).long()

    def draw(self, step: int) -> tuple[pd.DataFrame, np.random.Generator]:
        """The rows of batch `step`, and the random numbers from which the rest of it follows."""
        if not 0 <= step < self.steps:
            raise IndexError(step)
        rng = np.random.default_rng([self.seed, step])
        return self.table.iloc[rng.choice(len(self.table), size=self.batch, p=self.weights)], rng

    def on(self, device: torch.device, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches from number `start` on, cut on `device`, where all images lie."""
        for step in range(start, self.steps):
            yield self.cut(*self.draw(step), device)


def jitter(image: np.ndarray, labels: np.ndarray, size: int, wide: int, rng: np.random.Generator):
    """Resize to `wide` (250 in the paper), cut a random `size` (224) out of it, flip half of the time."""
    (y, x), flip = corner_and_flip(size, wide, rng)
    image = boxes.resize_image(image, wide)[y : y + size, x : x + size]
    labels = boxes.resize_labels(labels, wide)[y : y + size, x : x + size]
    return (image[:, ::-1], labels[:, ::-1]) if flip else (image, labels)


def corner_and_flip(size: int, wide: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    return rng.integers(wide - size + 1, size=2), rng.random() < 0.5


def other_colours(rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """For another picture of the same thing: channels permuted, and a negative half of the time."""
    return rng.permutation(3), rng.random() < 0.5


def crop_batches(images: Images, table: pd.DataFrame, settings: Crops | Backbone, size: int) -> Batches:
    """Batches of crops around the boxes of `table`; a row whose `instance` is not 0 follows stage 1's rule.

    With the backbone's settings each crop has the one label of its row.
    """
    table = table.assign(**dict(zip(BOX, boxes.extend(table[BOX], settings.context, settings.square).T, strict=True)))
    classify, wide = isinstance(settings, Backbone), settings.jitter or size
    recolour = classify and settings.recolour

    def make(row, rng):
        image, labels, instances = images[row.image]
        box = (row.x1, row.y1, row.x2, row.y2)
        cut = boxes.crop(labels, box, VOID)
        if row.instance:
            cut = only_object(cut, boxes.crop(instances, box, VOID), row.instance)
        image, cut = jitter(boxes.crop(image, box, 0), cut, size, wide, rng)
        if recolour:
            order, negative = other_colours(rng)
            image = 255 - image[..., order] if negative else image[..., order]
        return image, row.label if classify else cut

    def cut(picked, rng, device):
        drawn = [(*corner_and_flip(size, wide, rng), *(other_colours(rng) if recolour else ())) for _ in picked.index]
        corner, flip, *colours = (np.stack(part) for part in zip(*drawn, strict=True))
        at = np.array([images.index[name] for name in picked["image"]])
        named = picked[["instance", "label"]]
        columns = images.starts[at], images.shapes[at], picked[BOX], corner, flip, named, *colours
        columns = [np.asarray(column, np.int64).reshape(len(at), -1) for column in columns]
        rows = to_device(np.hstack(columns), device)  # one copy, since each takes its time to start
        start, shape, box, corner, flip, rows, *colours = rows.split([column.shape[1] for column in columns], dim=1)
        start, flip = start[:, 0], flip[:, 0] > 0
        flat, cuts = images.on(device), partial(Cuts, start=start, shape=shape, boxes=box, corner=corner, flip=flip)
        cuts = partial(cuts, wide=wide, size=size)
        pictures, area = cuts().pictures(flat), shape.prod(dim=1)
        if recolour:
            order, negative = colours
            pictures = pictures.gather(1, order[:, :, None, None].expand_as(pictures))
            pictures = torch.where(negative[:, :, None, None] > 0, 255 - pictures, pictures)
        if classify:
            return pictures, rows[:, 1]
        labels = cuts(start=start + 3 * area).labels(flat, VOID)
        instance = rows[:, :1, None]
        mine = (cuts(start=start + 4 * area).labels(flat, VOID) == instance) | (labels == VOID) | (instance == 0)
        return pictures, labels.where(mine, 0).long()

    return Batches(table, settings.batch, settings.updates, settings.seed, make, images, cut)


def image_batches(images: Images, names: list[str], settings: Fcn, stride: int) -> Batches:
    """Batches of whole images, flipped half of the time, padded (0, void) right and below to one size."""
    shapes = np.array([images[name][1].shape for name in names]).max(axis=0)
    height, width = (int(side + -side % stride) for side in shapes)

    def make(row, rng):
        image, labels, _ = images[row.image]
        if rng.random() < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        box = np.array([0, 0, width, height])
        return boxes.crop(image, box, 0), boxes.crop(labels, box, VOID)

    return Batches(pd.DataFrame({"image": names}), settings.batch, settings.updates, settings.seed, make, images)

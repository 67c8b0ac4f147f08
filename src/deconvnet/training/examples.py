"""What the networks are trained on (section 4.2): batches made on the fly, each sampled from (seed, step) alone.

Stage 1: the box of each annotated object; only that object keeps its class. Stage 2: proposals that overlap an object;
all classes are kept. The backbone: crops of both kinds with one class each. FCN-8s: whole images. An example is a row
of a table of boxes; crops are never stored.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from deconvnet.config.errors import UserError
from deconvnet.config.paths import OBJECTS
from deconvnet.config.schema import Backbone, Crops, Fcn, Params
from deconvnet.data import voc
from deconvnet.data.voc import VOID
from deconvnet.images import boxes
from deconvnet.images.batches import Batches
from deconvnet.images.boxes import BOX, box_iou
from deconvnet.images.crops import CropBatch, to_device
from deconvnet.images.image_cache import Images
from deconvnet.images.store import load_proposals


def only_object(labels: np.ndarray, instances: np.ndarray, instance: int) -> np.ndarray:
    """Stage 1's labels (section 4.2): this object keeps its class, void stays void, all else becomes background."""
    return np.where((instances == instance) | (labels == VOID), labels, 0).astype(np.uint8)


def stage_table(stage: int, split: str, params: Params) -> pd.DataFrame:
    """The examples of a split, one box per row, with the probability `weight` of sampling each.

    Stage 1: annotated objects. Stage 2: proposals, of which some may be negative (label 0). Raises UserError if no
    proposal overlaps an object.
    """
    objects = voc.read_objects(OBJECTS, split)
    if stage == 1:
        return balanced(objects, params.stage1.class_balance)
    settings = params.stage2
    table = match_proposals(load_proposals(split), objects, settings.min_iou, settings.negatives_among)
    positives, negatives = table.query("label > 0"), table.query("label == 0")
    if positives.empty:
        raise UserError(f"No proposal of {split} overlaps an object by stage2.min_iou = {settings.min_iou}: lower it.")
    share = settings.background_fraction if len(negatives) else 0
    positives, negatives = balanced(positives, settings.class_balance), balanced(negatives, balance=0)
    positives["weight"] *= 1 - share
    negatives["weight"] *= share
    return pd.concat([positives, negatives] if share else [positives], ignore_index=True)


def balanced(table: pd.DataFrame, balance: float) -> pd.DataFrame:
    """`table` with `weight`, of sum 1: n^-balance for an example of a class of n. With 0 all rows are sampled equally
    often, with 1 all classes, which is what repeating the examples of rare classes amounts to.
    """
    weight = table.groupby("label")["label"].transform("size") ** -float(balance)
    return table.assign(weight=weight / weight.sum())


def match_proposals(
    proposals: dict[str, np.ndarray], objects: pd.DataFrame, min_iou: float, negatives_among: int
) -> pd.DataFrame:
    """Proposals that overlap an object by `min_iou`, with the label of the object that they overlap most; and negative
    ones, label 0, from the best `negatives_among`.
    """
    rows = []
    for name, group in objects.groupby("image"):
        iou = box_iou(proposals[name][:, :4], group[BOX].to_numpy())
        if len(iou) == 0:
            continue
        label = np.where(iou.max(axis=1) >= min_iou, group["label"].to_numpy()[iou.argmax(axis=1)], 0)
        kept = (label > 0) | (np.arange(len(label)) < negatives_among)
        table = pd.DataFrame(proposals[name][kept, :4].astype(int), columns=BOX)
        rows.append(table.assign(image=name, instance=0, label=label[kept]))
    if not rows:
        return pd.DataFrame(columns=[*BOX, "image", "instance", "label"])
    return pd.concat(rows, ignore_index=True)


def random_crop(image: np.ndarray, labels: np.ndarray, size: int, resized: int, rng: np.random.Generator):
    """Resizes to side `resized` (250 in the paper), takes a random crop of `size` (224), mirrors half of the time."""
    (y, x), flip = corner_and_flip(size, resized, rng)
    image = boxes.resize_image(image, resized)[y : y + size, x : x + size]
    labels = boxes.resize_labels(labels, resized)[y : y + size, x : x + size]
    return (image[:, ::-1], labels[:, ::-1]) if flip else (image, labels)


def corner_and_flip(size: int, resized: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    return rng.integers(resized - size + 1, size=2), rng.random() < 0.5


def random_colours(rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """The order of the channels, and whether the image is inverted."""
    return rng.permutation(3), rng.random() < 0.5


def crop_batches(images: Images, table: pd.DataFrame, solver: Crops | Backbone, size: int) -> Batches:
    """Batches of crops around the boxes of `table`; a row whose `instance` is not 0 follows stage 1's rule.

    With the backbone's settings a crop has the one label of its row, instead of a label per pixel.
    """
    extended = boxes.extend(table[BOX], solver.context, solver.square_boxes)
    table = table.assign(**dict(zip(BOX, extended.T, strict=True)))
    classify, resized = isinstance(solver, Backbone), solver.resize_before_crop or size
    recolour = classify and solver.colour_augmentation

    def make(row, rng):
        image, labels, instances = images[row.image]
        box = (row.x1, row.y1, row.x2, row.y2)
        target = boxes.crop(labels, box, VOID)
        if row.instance:
            target = only_object(target, boxes.crop(instances, box, VOID), row.instance)
        image, target = random_crop(boxes.crop(image, box, 0), target, size, resized, rng)
        if recolour:
            order, inverted = random_colours(rng)
            image = 255 - image[..., order] if inverted else image[..., order]
        return image, row.label if classify else target

    def make_on_device(rows, rng, device):
        sampled = [
            (*corner_and_flip(size, resized, rng), *(random_colours(rng) if recolour else ())) for _ in rows.index
        ]
        corner, flip, *colours = (np.stack(part) for part in zip(*sampled, strict=True))
        number = np.array([images.index[name] for name in rows["image"]])
        columns = images.starts[number], images.shapes[number], rows[BOX], corner, flip, rows[["instance", "label"]]
        columns = [np.asarray(column, np.int64).reshape(len(number), -1) for column in (*columns, *colours)]
        joined = to_device(np.hstack(columns), device)  # one copy: starting one takes longer than the copy
        start, shape, box, corner, flip, ids, *colours = joined.split([column.shape[1] for column in columns], dim=1)
        start, flip, area = start[:, 0], flip[:, 0] > 0, shape.prod(dim=1)
        flat = images.on_device(device)
        crops = CropBatch(start, shape, box, corner, flip, resized, size)
        pictures = crops.pictures(flat)
        if recolour:
            order, inverted = colours
            pictures = pictures.gather(1, order[:, :, None, None].expand_as(pictures))
            pictures = torch.where(inverted[:, :, None, None] > 0, 255 - pictures, pictures)
        if classify:
            return pictures, ids[:, 1]
        labels = replace(crops, start=start + 3 * area).labels(flat, VOID)
        instances = replace(crops, start=start + 4 * area).labels(flat, VOID)
        instance = ids[:, :1, None]
        kept = (instances == instance) | (labels == VOID) | (instance == 0)
        return pictures, labels.where(kept, 0).long()

    return Batches(table, solver.batch_size, solver.iterations, solver.seed, make, images, make_on_device)


def image_batches(images: Images, names: list[str], solver: Fcn, stride: int) -> Batches:
    """Batches of whole images, mirrored half of the time, padded (0, void) right and below to the largest height and
    width of the batch, at multiples of `stride`. A few wide or tall images enlarge no batch but their own.
    """

    def make(row, rng):
        image, labels, _ = images[row.image]
        return (image[:, ::-1], labels[:, ::-1]) if rng.random() < 0.5 else (image, labels)

    def join(examples):
        sides = np.array([labels.shape for _, labels in examples]).max(axis=0)
        height, width = (int(side + -side % stride) for side in sides)
        box = np.array([0, 0, width, height])
        return [(boxes.crop(image, box, 0), boxes.crop(labels, box, VOID)) for image, labels in examples]

    table = pd.DataFrame({"image": names})
    return Batches(table, solver.batch_size, solver.iterations, solver.seed, make, images, join=join)

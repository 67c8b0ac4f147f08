"""Icon scenes: generated photographs in miniature with the 20 PASCAL VOC classes, the data that needs no download.

The objects are glyphs of Material Design Icons (font in the package fonticon-materialdesignicons7), textured, shaded,
turned, cut by the frame and by each other, on textured and cluttered ground. An object's label is its filled
silhouette; what is a hole in the glyph (a window, an eye) gets a texture of its own. Colour and texture are unrelated
to the class, shape alone tells it. Training and evaluation scenes share the glyphs, not their poses and surfaces.

The constants were set once, before any comparison of methods, against the 472 photographs 2007_* of VOC 2012 with
their longer side scaled to 160 px, and are frozen:

                                                         VOC 2007_*                icon scenes
    object size, 10/25/50/75/90 % (1)                    .12 .18 .30 .51 .70       .11 .17 .30 .55 .73
    small (< .15), medium (< .4), large objects          .19 .44 .37               .20 .40 .40
    objects, classes an image                            2.46, 1.67                2.34, 1.66
    objects touching the frame                           .38                       .34
    background, void pixels                              .70, .051                 .74, .041
    local deviation in objects, in background (2)        18.9, 12.9                15.9, 13.2
    gradient in objects, in background                   12.9, 8.8                 11.1, 9.2
    Lab contrast across boundaries, 10/50/90 %             14 25 39                  15 22 35
    dense CRF on ground truth at stride 8, mIoU (3)     89.6 -> 85.2              94.0 -> 92.4
    the same with 12 % of the cells wrong                70.8 -> 82.2              72.9 -> 89.4

(1) sqrt(box area / image area), boxes of at least 8 px at 160 px; (2) grey levels, windows of 5 x 5;
(3) the paper's CRF; glyphs are more compact than animals, so a CRF repairs random errors more easily here.
"""

from pathlib import Path

import cv2
import numpy as np
from joblib import Parallel, delayed
from PIL import Image
from tqdm import tqdm

from deconvnet.config import machine
from deconvnet.data.classes import VOC_NAMES
from deconvnet.data.icon_shapes import DISTRACTORS, GLYPHS, MIN_SIDE, place, scene_colours, surface
from deconvnet.data.voc import IMAGES, INSTANCES, LABELS, LISTS, SPLITS, VOID, save_mask

# Scene layout.
OBJECT_COUNT = (0.33, 0.31, 0.15, 0.08, 0.06, 0.04, 0.03)  # P(1), P(2), ... objects a scene; VOC: .34 .32 .14 .07 .06
SIZE_AT = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # levels of the quantiles of sqrt(box area) / sqrt(image area) ...
SIZE = (0.08, 0.13, 0.19, 0.33, 0.58, 0.80, 0.95)  # ... and these; a little over VOC's, the frame and neighbours cut
PERSON_WEIGHT = 4.0  # against 1 for any other class; VOC: 27 % of the objects are persons
SAME_CLASS = 0.5  # chance that an object repeats the class before it; VOC: 1.67 classes an image
MIN_VISIBLE, MIN_INSIDE = 0.5, 0.6  # least share of an object that its neighbours and the frame leave
CLUTTER = (4, 14)  # background shapes a scene
BLUR, NOISE, QUALITY = (0.2, 0.6), (1.0, 5.0), 92  # sigma in px, sigma in grey levels, JPEG: a small photograph's


def background(rng: np.random.Generator, width: int, height: int, colours: np.ndarray) -> np.ndarray:
    """Ground, sky and clutter, (3, height, width) float32."""
    image = surface(rng, width, height, *rng.choice(colours, 2, replace=False))
    for _ in range(rng.integers(*CLUTTER)):
        mask = np.zeros((height, width), np.uint8)
        at = tuple(int(v) for v in rng.uniform(0, 1, 2) * (width, height))
        extent = np.exp(rng.uniform(np.log(0.05), np.log(0.8))) * width
        kind = rng.integers(5)
        if kind == 0:  # blob
            axes = tuple(int(v) + 1 for v in rng.uniform(0.2, 0.6, 2) * extent)
            cv2.ellipse(mask, at, axes, rng.uniform(0, 180), 0, 360, 255, cv2.FILLED, cv2.LINE_AA)
        elif kind == 1:  # pole, cable, branch
            to = tuple(int(v) for v in at + rng.normal(0, 1, 2) * width)
            cv2.line(mask, at, to, 255, int(rng.integers(1, 5)), cv2.LINE_AA)
        elif kind == 2:  # wall, roof, field
            points = at + extent * rng.uniform(-0.6, 0.6, (int(rng.integers(3, 6)), 2))
            cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.int32)), 255, cv2.LINE_AA)
        elif kind == 3:  # horizon: everything below it
            tilt = rng.normal(0, 0.05) * width
            points = np.array([(0, at[1] - tilt), (width, at[1] + tilt), (width, height), (0, height)], np.int32)
            cv2.fillConvexPoly(mask, points, 255, cv2.LINE_AA)
        else:
            mask = place(rng, rng.choice(DISTRACTORS), extent * 0.6 + 6, width, height)[0] * 255
        cover = mask / np.float32(255)
        image = image * (1 - cover) + surface(rng, width, height, *rng.choice(colours, 2, replace=False)) * cover
    return image


def scene(rng: np.random.Generator, width: int = 160, height: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One scene: image (height, width, 3) uint8 RGB, labels (height, width) uint8 in 0-20 and 255, instances uint8."""
    colours = scene_colours(rng)
    image = background(rng, width, height, colours)
    instances = np.zeros((height, width), np.uint8)
    kinds, pixels = [0], [0]
    weights = np.where(np.array(VOC_NAMES[1:]) == "person", PERSON_WEIGHT, 1.0)
    count = 1 + rng.choice(len(OBJECT_COUNT), p=OBJECT_COUNT)
    sizes = np.interp(rng.random(count), SIZE_AT, SIZE) * np.sqrt(width * height)
    kind = 0
    for size in sorted(sizes, reverse=True):  # the large behind the small, or the small would be lost
        if kind == 0 or rng.random() > SAME_CLASS:
            kind = 1 + rng.choice(20, p=weights / weights.sum())
        name = rng.choice(GLYPHS[VOC_NAMES[kind]])
        for _ in range(20):
            ink, filled, inside = place(rng, name, size, width, height)
            mine = filled > 0.5
            rows, columns = np.flatnonzero(mine.any(1)), np.flatnonzero(mine.any(0))
            if inside < MIN_INSIDE or min(np.ptp(rows), np.ptp(columns)) + 1 < MIN_SIDE:
                continue
            left = np.bincount(instances[~mine], minlength=len(pixels))
            if all(left[i] >= MIN_VISIBLE * pixels[i] for i in range(1, len(pixels))):
                break
        else:
            continue
        # Never in the colour nearest to what it covers, or it could not be learnt; but its markings are: there the
        # boundary is weak, as parts of most boundaries are in photographs.
        distance = np.linalg.norm(colours - image.transpose(1, 2, 0)[mine].mean(axis=0), axis=1)
        ground, *others = colours[np.argsort(distance)]
        body, holes = rng.choice(others, 2, replace=False)
        outer, inner = surface(rng, width, height, body, ground), surface(rng, width, height, holes, ground)
        image = image * (1 - filled) + (outer * ink + inner * (1 - ink)) * filled
        instances[mine] = len(kinds)
        kinds.append(kind)
        pixels.append(int(mine.sum()))
    labels = np.array(kinds, np.uint8)[instances]
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))  # a pixel on either side of a boundary is void
    boundary = cv2.morphologyEx(instances, cv2.MORPH_GRADIENT, cross) > 0
    labels[boundary] = instances[boundary] = VOID
    image = cv2.GaussianBlur(np.ascontiguousarray(image.transpose(1, 2, 0)), (0, 0), rng.uniform(*BLUR))
    image += rng.uniform(*NOISE) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image, 0, 255).astype(np.uint8), labels, instances


def write(folder: Path, split: str, index: int, width: int, height: int, seed: int) -> None:
    """Writes one scene, a function of the seed, the split and the index alone."""
    image, labels, instances = scene(np.random.default_rng([seed, SPLITS.index(split), index]), width, height)
    name = f"{split}_{index:05d}"
    Image.fromarray(image).save(folder / IMAGES / f"{name}.jpg", quality=QUALITY)
    save_mask(folder / LABELS / f"{name}.png", labels)
    save_mask(folder / INSTANCES / f"{name}.png", instances)


def generate(
    folder: Path, *, train: int, dev: int, val: int, width: int = 160, height: int = 120, seed: int = 0
) -> None:
    """Writes a VOC folder of icon scenes: JPEGImages, SegmentationClass, SegmentationObject and ImageSets.

    Each scene depends on the seed, its split and its index alone, so a split's size never changes another's scenes.
    """
    folder = Path(folder)
    for sub in (IMAGES, LABELS, INSTANCES, LISTS):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    jobs = []
    for split, count in zip(SPLITS, (train, dev, val), strict=True):
        jobs += [(split, index) for index in range(count)]
        names = [f"{split}_{index:05d}\n" for index in range(count)]
        (folder / LISTS / f"{split}.txt").write_text("".join(names), encoding="utf-8")
    done = Parallel(n_jobs=machine.cores(), return_as="generator")(
        delayed(write)(folder, split, index, width, height, seed) for split, index in jobs
    )
    for _ in tqdm(done, total=len(jobs), desc="icon scenes", unit="scene"):
        pass

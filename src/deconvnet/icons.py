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
    Lab contrast across contours, 10/50/90 %             14 25 39                  15 22 35
    dense CRF on the truth at stride 8, mean IoU (3)     89.6 -> 85.2              94.0 -> 92.4
    the same with 12 % of the cells wrong                70.8 -> 82.2              72.9 -> 89.4

(1) sqrt(box area / image area), boxes of at least 8 px at 160 px; (2) grey levels, windows of 5 x 5;
(3) the paper's CRF; glyphs are more compact than animals, so a CRF repairs random errors more easily here.
"""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
from fonticon_mdi7 import MDI7
from joblib import Parallel, delayed
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from deconvnet import machine
from deconvnet.voc import CLASSES, IMAGES, INSTANCES, LABELS, LISTS, SPLITS, VOID, save_mask

GLYPHS = {
    "aeroplane": ("airplane",),
    "bicycle": ("bicycle",),
    "bird": ("bird", "duck"),
    "boat": ("sail_boat", "ferry"),
    "bottle": ("bottle_wine", "bottle_soda"),
    "bus": ("bus_side", "bus_double_decker"),
    "car": ("car_hatchback", "car_side"),
    "cat": ("cat",),
    "chair": ("chair_rolling", "seat"),
    "cow": ("cow",),
    "diningtable": ("table_furniture",),
    "dog": ("dog_side",),
    "horse": ("horse_variant",),
    "motorbike": ("motorbike", "moped"),
    "person": ("human", "walk", "run"),
    "pottedplant": ("flower_tulip",),
    "sheep": ("sheep",),
    "sofa": ("sofa",),
    "train": ("train", "tram"),
    "tvmonitor": ("television", "monitor"),
}
# Shapes of no VOC class, drawn into the background with the objects' own textures: being a shape is no evidence.
DISTRACTORS = ("umbrella", "key", "guitar_acoustic", "star", "puzzle", "cloud", "gift", "trophy", "crown", "lightbulb")

EM = 256  # px of the master glyphs: near the largest object
# Scene layout.
OBJECT_COUNT = (0.33, 0.31, 0.15, 0.08, 0.06, 0.04, 0.03)  # P(1), P(2), ... objects a scene; VOC: .34 .32 .14 .07 .06
SIZE_AT = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # levels of the quantiles of sqrt(box area) / sqrt(image area) ...
SIZE = (0.08, 0.13, 0.19, 0.33, 0.58, 0.80, 0.95)  # ... and these; a little over VOC's, the frame and neighbours cut
PERSON_WEIGHT = 4.0  # against 1 for any other class; VOC: 27 % of the objects are persons
SAME_CLASS = 0.5  # chance that an object repeats the class before it; VOC: 1.67 classes an image
MIN_SIDE = 10  # px, 8 inside the void contour: smaller objects cannot be learnt
MIN_VISIBLE, MIN_INSIDE = 0.5, 0.6  # least share of an object that its neighbours and the frame leave
FREE = 0.45  # chance that a place ignores the frame; VOC: 38 % of the objects touch it
ROTATION, ASPECT, SHEAR = 10.0, 0.1, 0.1  # +- degrees, log aspect, horizontal shear: VOC says nothing, so mild
CLUTTER = (4, 14)  # background shapes a scene
# Appearance: together these set texture, contrast and what a dense CRF gains.
COLOURS = 6  # colours a scene, shared by objects and ground: contours are weak in places, as in photographs
LUMA, CHROMA = 47.0, 17.0  # spread of the colours around mid grey
TEXTURE = (6.0, 52.0)  # amplitude of a surface's grain in grey levels, log-uniform; VOC's varies as widely
COARSEST = (8, 16, 32)  # px of a texture's coarsest cells
SLOPE = (0.6, 0.95)  # weight of each finer octave: near 1 is sand, 0.6 is cloud
MARKING = (0.3, 1.8)  # threshold of the markings, in deviations: 4-40 % of a surface has another colour
SHADING = 30.0  # spread of a surface's linear shading over the image
BLUR, NOISE, QUALITY = (0.2, 0.6), (1.0, 5.0), 92  # sigma in px, sigma in grey levels, JPEG: a small photograph's


@cache
def glyph(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Ink and filled silhouette of a Material Design icon, cropped to its box: two (h, w) uint8 in 0-255."""
    font = ImageFont.truetype(MDI7.__font_file__, EM)
    image = Image.new("L", (EM + 64, EM + 64))
    ImageDraw.Draw(image).text((32, 32), getattr(MDI7, name).split(".")[1], font=font, fill=255)
    ink = np.asarray(image)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (23, 23))  # closes the gaps between a glyph's parts
    closed = cv2.morphologyEx(ink, cv2.MORPH_CLOSE, disk)
    outlines, _ = cv2.findContours((closed > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(closed.copy(), outlines, -1, 255, cv2.FILLED)
    x, y, w, h = cv2.boundingRect(filled)
    return ink[y : y + h, x : x + w], filled[y : y + h, x : x + w]


@cache
def hull(name: str) -> np.ndarray:
    """The corners (N, 2) of the silhouette's convex hull, x and y: its extent hangs on no other point."""
    return cv2.convexHull(np.argwhere(glyph(name)[1] > 127)[:, ::-1].astype(np.int32))[:, 0]


def noise(rng: np.random.Generator, width: int, height: int, coarsest: int, slope: float) -> np.ndarray:
    """Multi-octave noise, (height, width) float32 of mean 0 and deviation 1; `slope` weighs each finer octave."""
    total, weight, cell = np.zeros((height, width), np.float32), 1.0, coarsest
    while cell >= 1:
        grid = rng.standard_normal((height // cell + 3, width // cell + 3), dtype=np.float32)
        fine = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC) if cell > 1 else grid
        total += weight * fine[:height, :width]
        weight, cell = weight * slope, cell // 2
    total -= total.mean()
    return total / (np.sqrt(np.square(total).mean()) + 1e-6)


def palette(rng: np.random.Generator) -> np.ndarray:
    """A scene's colours, (COLOURS, 3): objects of every class and the background take theirs from the same few."""
    luma, chroma = rng.standard_normal((COLOURS, 1)), rng.standard_normal((COLOURS, 3))
    return 118 + LUMA * luma + CHROMA * chroma


def surface(rng: np.random.Generator, width: int, height: int, base: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A textured and shaded surface with markings of another colour, (3, height, width) float32."""
    slope, coarsest = rng.uniform(*SLOPE), rng.choice(COARSEST, 2)
    amplitude = np.exp(rng.uniform(*np.log(TEXTURE)))
    stretch = rng.uniform(0.5, 2)  # grain longer one way than the other
    grain = noise(rng, int(width * stretch), height, int(coarsest[0]), slope)
    grain = cv2.resize(grain, (width, height), interpolation=cv2.INTER_AREA)
    markings = 1 / (1 + np.exp(-8 * (noise(rng, width, height, int(coarsest[1]), 0.4) - rng.uniform(*MARKING))))
    x, y = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)[:, None]
    shading = SHADING * (rng.standard_normal() * x + rng.standard_normal() * y)
    light, tint = shading + amplitude * grain, 1 + 0.15 * rng.standard_normal(3)
    planes = np.empty((3, height, width), np.float32)
    for plane, b, o, t in zip(planes, base, other, tint, strict=True):  # plane by plane: three times as fast
        plane[:] = b + light * t + markings * (o - b)
    return planes


def place(
    rng: np.random.Generator, name: str, size: float, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Puts a glyph somewhere in an image, flipped, turned, sheared and scaled to sqrt(box area) = `size` px.

    Returns its ink and its silhouette, (height, width) float32 in 0-1, and the share of the silhouette in the image.
    """
    flip = rng.choice((-1, 1))
    masks = [mask[:, ::flip] for mask in glyph(name)]
    angle, aspect, shear = rng.uniform(-1, 1, 3) * (np.deg2rad(ROTATION), ASPECT, SHEAR)
    cos, sin = np.cos(angle), np.sin(angle)
    shape = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]]) @ np.diag(np.exp([aspect, -aspect]))
    frame = np.array([width, height])
    extent = np.ptp(hull(name) * (flip, 1) @ shape.T, axis=0)
    scale = np.clip(size / np.sqrt(np.prod(extent)), (MIN_SIDE + 1) / min(extent), 1.25 * min(frame / extent))
    near, far = (0, frame) if rng.random() < FREE else np.sort([extent * scale / 2, frame - extent * scale / 2], axis=0)
    centre = rng.uniform(near, far)
    # Shrunk by area averaging to twice the final size, then warped: no aliasing and no second blur.
    masks = [cv2.resize(mask, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_AREA) for mask in masks]
    shape /= 2
    matrix = np.column_stack([shape, centre - shape @ np.array(masks[1].shape[::-1]) / 2])
    whole = (masks[1] > 127).sum() * abs(np.linalg.det(shape))
    ink, filled = (cv2.warpAffine(mask, matrix, (width, height)) / np.float32(255) for mask in masks)
    return ink, filled, (filled > 0.5).sum() / whole


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
    colours = palette(rng)
    image = background(rng, width, height, colours)
    instances = np.zeros((height, width), np.uint8)
    kinds, pixels = [0], [0]
    weights = np.where(np.array(CLASSES[1:]) == "person", PERSON_WEIGHT, 1.0)
    wanted = 1 + rng.choice(len(OBJECT_COUNT), p=OBJECT_COUNT)
    sizes = np.interp(rng.random(wanted), SIZE_AT, SIZE) * np.sqrt(width * height)
    kind = 0
    for size in sorted(sizes, reverse=True):  # the large behind the small, or the small would be lost
        if kind == 0 or rng.random() > SAME_CLASS:
            kind = 1 + rng.choice(20, p=weights / weights.sum())
        name = rng.choice(GLYPHS[CLASSES[kind]])
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
        # contour is weak, as parts of most contours are in photographs.
        distance = np.linalg.norm(colours - image.transpose(1, 2, 0)[mine].mean(axis=0), axis=1)
        ground, *others = colours[np.argsort(distance)]
        body, holes = rng.choice(others, 2, replace=False)
        outer, inner = surface(rng, width, height, body, ground), surface(rng, width, height, holes, ground)
        image = image * (1 - filled) + (outer * ink + inner * (1 - ink)) * filled
        instances[mine] = len(kinds)
        kinds.append(kind)
        pixels.append(int(mine.sum()))
    labels = np.array(kinds, np.uint8)[instances]
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))  # a pixel on either side of a contour is void
    contour = cv2.morphologyEx(instances, cv2.MORPH_GRADIENT, cross) > 0
    labels[contour] = instances[contour] = VOID
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
        (folder / LISTS / f"{split}.txt").write_text("".join(names))
    done = Parallel(n_jobs=machine.cores(), return_as="generator")(
        delayed(write)(folder, split, index, width, height, seed) for split, index in jobs
    )
    for _ in tqdm(done, total=len(jobs), desc="icon scenes", unit="scene"):
        pass

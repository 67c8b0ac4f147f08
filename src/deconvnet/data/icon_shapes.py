"""What icon scenes are drawn with: glyphs, textured surfaces, and placing a glyph in an image. icon_scenes.py composes
them, and states how these constants were set.
"""

from functools import cache

import cv2
import numpy as np
from fonticon_mdi7 import MDI7
from PIL import Image, ImageDraw, ImageFont

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
MIN_SIDE = 10  # px, 8 inside the void boundary: smaller objects cannot be learnt
FREE = 0.45  # chance that a place ignores the frame; VOC: 38 % of the objects touch it
ROTATION, ASPECT, SHEAR = 10.0, 0.1, 0.1  # +- degrees, log aspect, horizontal shear: VOC says nothing, so mild
# Appearance: together these set texture, contrast and what a dense CRF gains.
COLOURS = 6  # colours a scene, shared by objects and ground: boundaries are weak in places, as in photographs
LUMA, CHROMA = 47.0, 17.0  # spread of the colours around mid grey
TEXTURE = (6.0, 52.0)  # amplitude of a surface's grain in grey levels, log-uniform; VOC's varies as widely
COARSEST = (8, 16, 32)  # px of a texture's coarsest cells
SLOPE = (0.6, 0.95)  # weight of each finer octave: near 1 is sand, 0.6 is cloud
MARKING = (0.3, 1.8)  # threshold of the markings, in deviations: 4-40 % of a surface has another colour
SHADING = 30.0  # spread of a surface's linear shading over the image


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
    """The corners (N, 2) of the silhouette's convex hull, x and y: no other point matters for its extent."""
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


def scene_colours(rng: np.random.Generator) -> np.ndarray:
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

"""Counts of images that are drawn for tests of intervals, measures and claims."""

import numpy as np

CLASSES = 21


def counts(*images: tuple[dict, dict, dict]) -> np.ndarray:
    """(N, 3, 21): {class: pixels} that are correct, in the ground truth, and predicted, for each image."""
    found = np.zeros((len(images), 3, CLASSES), np.uint32)
    for i, rows in enumerate(images):
        for row, by_class in enumerate(rows):
            for label, pixels in by_class.items():
                found[i, row, label] = pixels
    return found


def drawn(quality: float, images: int, seed: int) -> np.ndarray:
    """Counts of images whose 100 pixels of two classes are correct with probability `quality`."""
    rng = np.random.default_rng(seed)
    correct = rng.binomial(50, quality, (images, 2))
    return counts(*(
        ({0: a, 1: b}, {0: 50, 1: 50}, {0: a + 50 - b, 1: b + 50 - a}) for a, b in correct
    ))  # fmt: skip

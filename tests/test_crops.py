"""Crops gathered as a batch on a device, compared with OpenCV's crops one by one."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from deconvnet.config import params
from deconvnet.data import voc
from deconvnet.data.voc import VOID
from deconvnet.images import boxes, crops, image_cache
from deconvnet.images.crops import CropBatch
from deconvnet.training import examples


def test_random_boxes_agree_with_opencv():
    """Boxes inside, across and outside of the image; enlarged and shrunk; at every corner; mirrored or not."""
    rng, largest_error = np.random.default_rng(0), 0
    for _ in range(200):
        height, width = rng.integers(3, 300, 2)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        labels = rng.integers(0, 256, (height, width), dtype=np.uint8)
        corner = rng.integers(-100, (width, height))
        box, resized = np.concatenate([corner, corner + rng.integers(1, 400, 2)]), int(rng.integers(2, 260))
        size = int(rng.integers(1, resized + 1))
        y, x = rng.integers(resized - size + 1, size=2)
        flip = rng.random() < 0.5
        expected = boxes.resize_image(boxes.crop(image, box, 0), resized)[y : y + size, x : x + size]
        expected_labels = boxes.resize_labels(boxes.crop(labels, box, VOID), resized)[y : y + size, x : x + size]
        if flip:
            expected, expected_labels = expected[:, ::-1], expected_labels[:, ::-1]
        flat = torch.from_numpy(np.concatenate([np.zeros(7, np.uint8), image.ravel(), labels.ravel()]))
        row = [torch.tensor([part]) for part in ([height, width], box.tolist(), [y, x], flip)]
        found = CropBatch(torch.tensor([7]), *row, resized, size).pictures(flat)[0].permute(1, 2, 0).numpy()
        largest_error = max(largest_error, np.abs(found - expected).max())
        found = CropBatch(torch.tensor([7 + image.size]), *row, resized, size).labels(flat, VOID)[0].numpy()
        assert (found == expected_labels).all()
    assert largest_error <= 1  # grey level


def test_crops_of_one_image_on_a_device():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    regions = np.array([[0, 0, 80, 60], [-20, -30, 50, 40], [70, 50, 120, 100], [200, 200, 240, 240]])
    found = crops.crop_boxes_on_device(image, regions, 32, "cpu")
    assert (found - crops.crop_boxes(image, regions, 32)).abs().max() <= 1
    assert (found[3] == 0).all()


def test_crops_of_a_large_image_are_made_one_by_one():
    """Each leaves the image, and so is a copy of 1.2 MB: memory holds at most two of the twenty at a time."""
    image, regions = np.zeros((600, 600, 3), np.uint8), np.tile([-20, -20, 620, 620], (20, 1))
    tracemalloc.start()
    crops.crop_boxes(image, regions, 8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 640 * 640 * 3 < peak < 3 * 640 * 640 * 3


@pytest.fixture
def scenes(tmp_path):
    """Three photographs of different sizes with masks, and a table of boxes with and without an instance."""
    rng, folder = np.random.default_rng(1), tmp_path / "voc"
    (folder / voc.IMAGES).mkdir(parents=True)
    rows = []
    for name, (height, width) in {"a": (50, 70), "b": (64, 48), "c": (33, 90)}.items():
        picture = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        Image.fromarray(picture).resize((width, height)).save(voc.image_path(folder, name))
        instances = np.zeros((height, width), np.uint8)
        instances[5:30, 8:30], instances[10:25, 31:45], instances[:4] = 1, 2, VOID
        voc.save_mask(voc.instances_path(folder, name), instances)
        voc.save_mask(
            voc.labels_path(folder, name), np.select([instances == 1, instances == 2], [15, 3], instances + 0.0)
        )
        for instance, label in ((1, 15), (2, 3), (0, 15)):
            rows.append((name, instance, label, 8 + instance, 5, 40, 33))
    table = pd.DataFrame(rows, columns=["image", "instance", "label", *boxes.BOX])
    return image_cache.Images(folder, ["a", "b", "c"]), table


@pytest.mark.parametrize("section", ["stage1", "stage2", "backbone"])
def test_a_batch_made_on_the_device_equals_the_plain_batch(scenes, section):
    images, table = scenes
    settings = getattr(params.validate(params.compose("icons"), "icons"), section)
    batches = examples.crop_batches(images, table, settings.model_copy(update={"iterations": 6, "batch_size": 16}), 64)
    for plain, found in zip(batches, batches.on_device(torch.device("cpu")), strict=True):
        assert (plain[0] - found[0]).abs().max() <= 1
        assert plain[0].dtype == found[0].dtype
        assert torch.equal(plain[1], found[1])
    assert len(plain[1].unique()) > 1
    (last,) = batches.on_device(torch.device("cpu"), start=5)
    assert torch.equal(last[0], found[0])

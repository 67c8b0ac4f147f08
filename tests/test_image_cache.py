"""The cache of decoded images: its content, when it is made anew, and its size."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from deconvnet.config.errors import UserError
from deconvnet.data import voc
from deconvnet.images import image_cache


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two photographs of different sizes in the project's own folder, whose cache stays on disk."""
    monkeypatch.setattr(image_cache, "VOC", tmp_path / "voc")
    monkeypatch.setattr(image_cache, "IMAGE_CACHE", tmp_path / "pixels")
    rng = np.random.default_rng(0)
    (tmp_path / "voc" / voc.IMAGES).mkdir(parents=True)
    for name, shape in {"a": (20, 30), "b": (7, 5)}.items():
        picture = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(picture).save(voc.image_path(tmp_path / "voc", name))
        for path in (voc.labels_path, voc.instances_path):
            voc.save_mask(path(tmp_path / "voc", name), rng.integers(0, 21, shape))
    return tmp_path / "voc"


@pytest.fixture
def decoded(monkeypatch):
    """The ids that are decoded from now on."""
    seen, plain = [], voc.read_image
    monkeypatch.setattr(voc, "read_image", lambda folder, name: seen.append(name) or plain(folder, name))
    return seen


def test_images_equal_those_of_the_readers(folder):
    images = image_cache.Images(folder, ["b", "a"])
    for name in ("a", "b"):
        read = [reader(folder, name) for reader in (voc.read_image, voc.read_labels, voc.read_instances)]
        for found, expected in zip(images[name], read, strict=True):
            assert found.shape == expected.shape
            assert (found == expected).all()
    (only,) = image_cache.Images(folder, ["a"], masks=False)["a"]
    assert (only == voc.read_image(folder, "a")).all()


def test_an_image_is_decoded_once_until_it_changes(folder, decoded):
    first = image_cache.Images(folder, ["a", "b"])
    assert sorted(decoded) == ["a", "b"]
    again = image_cache.Images(folder, ["a", "b"])
    assert sorted(decoded) == ["a", "b"]
    assert again.fingerprint() == first.fingerprint()
    assert again.flat.nbytes == 5 * (20 * 30 + 7 * 5)
    voc.save_mask(voc.labels_path(folder, "b"), np.zeros((7, 5)))
    changed = image_cache.Images(folder, ["a", "b"])
    assert sorted(decoded) == ["a", "a", "b", "b"]
    assert changed.fingerprint() != first.fingerprint()
    assert (changed["b"][1] == 0).all()


def test_concurrent_readers_decode_each_image_once(folder, decoded):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: image_cache.Images(folder, ["a", "b"]), range(2)))
    assert sorted(decoded) == ["a", "b"]
    assert (found[0].flat == found[1].flat).all()


def test_after_a_broken_file_the_cache_is_made_again(folder):
    whole = voc.image_path(folder, "b").read_bytes()
    voc.image_path(folder, "b").write_bytes(whole[:100])
    with pytest.raises(UserError, match=r"b\.jpg is not a complete JPEG"):
        image_cache.Images(folder, ["a", "b"])
    voc.image_path(folder, "b").write_bytes(whole)
    assert image_cache.Images(folder, ["a", "b"])["b"][0].shape == (7, 5, 3)


def test_the_cache_of_a_users_folder_is_temporary(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "VOC", tmp_path / "elsewhere")
    images = image_cache.Images(folder, ["a"])
    assert images["a"][0].shape == (20, 30, 3)
    assert not (tmp_path / "pixels").exists()
    assert image_cache.Images(folder, []).flat.size == 0

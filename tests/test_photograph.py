"""Photographs that people hand in: every way in which Pillow's formats store one, and the size that networks see."""

import io
import struct
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from test_validate import random_files

from deconvnet.data import photograph
from deconvnet.data.reading import FileError

COLOUR = (200, 30, 60)
GREY = 0.2989 * 200 + 0.587 * 30 + 0.114 * 60
LEFT, RIGHT = np.s_[:, :4], np.s_[:, 4:]


def picture(size=(8, 6)) -> Image.Image:
    """Left half COLOUR, right half white: what each way of storing it must give back."""
    image = Image.new("RGB", size, "white")
    image.paste(COLOUR, (0, 0, size[0] // 2, size[1]))
    return image


def deep(image: Image.Image, white: int) -> np.ndarray:
    return np.rint(np.asarray(image.convert("L")) / 255 * white).astype(np.uint16)


def lab(image: Image.Image) -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(image, *profiles, outputMode="LAB")


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """How a camera stores the picture that it means to be turned so: the inverse of each operation."""
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF → Image.Transpose
    return image.transpose(Image.Transpose(inverse[orientation])) if orientation > 1 else image


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def with_alpha(kind: str) -> Image.Image:
    """Right half transparent, above a colour that nobody sees."""
    image = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    image.paste((*COLOUR, 255), (0, 0, 4, 6))
    return image.convert(kind)


COLOURED = {  # name of the file: how the picture is stored
    "rgb.png": {}, "rgb.jpg": {"quality": 95, "subsampling": 0}, "rgb.bmp": {}, "rgb.webp": {"lossless": True},
    "rgb.tif": {}, "rgb.tiff": {"compression": "tiff_lzw"}, "rgb.ppm": {}, "rgb.tga": {}, "rgb.jp2": {},
    "rgb.qoi": {}, "rgb.avif": {"quality": 100}, "rgb.ico": {}, "rgb.pcx": {}, "rgb.sgi": {}, "rgb.dds": {},
}  # fmt: skip
MODES = {  # the same with other pixels
    "palette.png": lambda: picture().quantize(4),
    "palette.gif": lambda: picture().quantize(4),
    "cmyk.tif": lambda: picture().convert("CMYK"),
    "cmyk.jpg": lambda: picture().convert("CMYK"),
    "lab.tif": lambda: lab(picture()),
    "ycc.jpg": lambda: picture().convert("YCbCr"),
    "alpha.png": lambda: with_alpha("RGBA"),
    "alpha.webp": lambda: with_alpha("RGBA"),
    "alpha.tif": lambda: with_alpha("RGBA"),
    "alpha.gif": lambda: with_alpha("RGBA"),
}
GREYS = {
    "grey.png": lambda: picture().convert("L"),
    "grey.jpg": lambda: picture().convert("L"),
    "grey_alpha.png": lambda: with_alpha("LA"),
    "deep.png": lambda: Image.fromarray(deep(picture(), 65535)),
    "deep.tif": lambda: Image.fromarray(deep(picture(), 65535)),
    "deep.jp2": lambda: Image.fromarray(deep(picture(), 65535)),
    "deep.pgm": lambda: Image.fromarray(deep(picture(), 65535)),
}


def agrees(path, left=COLOUR, right=(255,) * 3, tolerance=4) -> None:
    found = photograph.read(path)
    assert found.dtype == np.uint8
    assert found.shape == (6, 8, 3)
    assert np.abs(found[LEFT].astype(int) - np.array(left)).max() <= tolerance
    assert np.abs(found[RIGHT].astype(int) - np.array(right)).max() <= tolerance


@pytest.mark.parametrize("name", COLOURED)
def test_every_format_gives_the_picture(tmp_path, name):
    if name.endswith("avif") and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow has no AVIF")
    options = {"sizes": [(8, 6)]} if name.endswith("ico") else {}
    picture().save(tmp_path / name, **COLOURED[name], **options)
    agrees(tmp_path / name)


@pytest.mark.parametrize("name", MODES)
def test_every_mode_gives_the_picture(tmp_path, name):
    options = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}
    MODES[name]().save(tmp_path / name, **options.get(name.rsplit(".")[-1], {}))
    agrees(tmp_path / name)


@pytest.mark.parametrize("name", GREYS)
def test_grey_of_any_depth_is_three_equal_channels(tmp_path, name):
    GREYS[name]().save(tmp_path / name)
    agrees(tmp_path / name, (GREY,) * 3)


def test_one_bit(tmp_path):
    picture().convert("1", dither=Image.Dither.NONE).save(tmp_path / "bits.png")
    agrees(tmp_path / "bits.png", (0, 0, 0))


def test_transparent_values_are_white(tmp_path):
    """A palette entry, a colour, a grey or a deep grey can be transparent, without an alpha channel."""
    palette = picture().quantize(4)
    for name, image, value in [
        ("palette.png", palette, palette.getpixel((0, 0))), ("rgb.png", picture(), COLOUR),
        ("grey.png", picture().convert("L"), round(GREY)), ("bits.png", Image.new("1", (8, 6)), 0),
        ("deep.png", Image.fromarray(deep(picture(), 65535)), int(deep(picture(), 65535)[0, 0])),
    ]:  # fmt: skip
        image.save(tmp_path / name, transparency=value)
        agrees(tmp_path / name, (255,) * 3, tolerance=0)


def test_half_transparent_is_mixed_with_white(tmp_path):
    Image.new("RGBA", (8, 6), (*COLOUR, 51)).save(tmp_path / "a.png")
    agrees(tmp_path / "a.png", *[[255 + (c - 255) * 0.2 for c in COLOUR]] * 2, tolerance=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_turned_pictures_come_upright(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    turned(picture(), orientation).save(path, exif=exif(orientation), **options)
    agrees(path)


def test_a_deep_grey_picture_that_is_turned(tmp_path):
    image = turned(Image.fromarray(deep(picture(), 65535)), 6)
    image.save(tmp_path / "a.png", exif=exif(6))
    agrees(tmp_path / "a.png", (GREY,) * 3)


@pytest.mark.parametrize(("bits", "photometric"), [(16, 1), (16, 0), (12, 1)])
def test_tiffs_of_other_depths(tmp_path, bits, photometric):
    """White is 0 where the tag says so, and 4,095 in a picture of 12 bits, which is packed by hand here."""
    values = deep(picture(), 2**bits - 1)
    values = values if photometric else 65535 - values
    if bits == 12:
        first, second = values.ravel()[::2], values.ravel()[1::2]
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8)
        content = packed.tobytes()
    else:
        content = values.astype("<u2").tobytes()
    tags = {256: 8, 257: 6, 258: bits, 259: 1, 262: photometric, 273: 122, 277: 1, 278: 6, 279: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())  # all of type LONG
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + content)
    agrees(tmp_path / "a.tif", (GREY,) * 3)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_several_pictures_the_first(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    picture().save(path, save_all=True, append_images=[Image.new("RGB", (8, 6), c) for c in ("red", "blue")], **options)
    with Image.open(path) as stored:
        assert stored.n_frames == 3
    agrees(path)


@pytest.mark.parametrize(("kind", "suffix"), [(np.float32, "tif"), (np.int32, "tif"), (np.float32, "pfm")])
def test_pixels_without_a_known_white_are_refused(tmp_path, kind, suffix):
    Image.fromarray(np.asarray(picture().convert("L")).astype(kind)).save(tmp_path / f"a.{suffix}")
    with pytest.raises(FileError, match=r"does not say which of their values is white\. Save it with 8 bits"):
        photograph.read(tmp_path / f"a.{suffix}")


def test_what_is_no_picture_is_refused_in_a_sentence(tmp_path, monkeypatch):
    picture().save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_bytes(b"no picture")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("nowhere")
    expected = {
        "cut.png": "is not a complete picture", "text.jpg": "is not a complete picture (it begins otherwise)",
        "empty.jpg": "is not a complete picture", "folder.jpg": "is not a file", "none.jpg": "is missing",
        "link.jpg": "is a link to a file that does not exist",
    }  # fmt: skip
    for name, problem in expected.items():
        with pytest.raises(FileError) as failed:
            photograph.read(tmp_path / name)
        assert str(failed.value).startswith(f"{tmp_path / name} {problem}")
        assert "\n" not in str(failed.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # 48 are more than twice as many
    with pytest.raises(FileError, match="has more than 0 million pixels"):
        photograph.read(tmp_path / "whole.png")


@random_files
@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"]), st.data())
def test_a_spoilt_file_is_read_or_refused(tmp_path_factory, kind, data):
    """Any byte may be another one: a picture or a sentence comes back, and no other error or warning."""
    content = io.BytesIO()
    picture().save(content, kind)
    spoilt = bytearray(content.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(spoilt) - 1), min_size=1, max_size=4)):
        spoilt[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "spoilt"
    path.write_bytes(spoilt)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = photograph.read(path)
        except FileError:
            return
    assert found.dtype == np.uint8
    assert found.shape[2] == 3


@random_files
@given(st.integers(1, 1200), st.integers(1, 1200))
@example(4000, 1)
@example(500, 500)
@example(501, 500)
def test_only_what_is_larger_is_reduced(width, height):
    image = np.zeros((height, width), np.uint8)
    reduced = photograph.reduce(image)
    longer = max(width, height)
    if longer <= photograph.MAX_SIDE_PX:
        assert reduced is image
    else:
        scale = photograph.MAX_SIDE_PX / longer
        assert max(reduced.shape) == photograph.MAX_SIDE_PX
        for side, before in zip(reduced.shape, (height, width), strict=False):
            assert abs(side - max(scale * before, 1)) < 1

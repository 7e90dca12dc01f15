from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from compress.data import image_pixels
from compress.data.image_pixels import decode, rotated, to_input
from compress.errors import DataError
from compress.recipe import ImageConfig

PATH = Path("photos/cat/7.png")


def encoded(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def picture_of(values):
    """A picture of `[height, width]` or `[height, width, 3]` numbers."""
    return Image.fromarray(np.asarray(values, np.uint8))


def prepared(values, **image):
    return to_input(decode(encoded(picture_of(values)), PATH), ImageConfig(**image), PATH)


def test_scale_mean_and_deviation_by_channel():
    values = np.zeros((2, 2, 3))
    values[..., 0], values[..., 1], values[..., 2] = 51, 102, 255
    found = prepared(values, size=(2, 2), mean=(0.1, 0.2, 0.5), std=(0.1, 0.2, 0.25))
    assert found.dtype == np.float32
    assert found.shape == (3, 2, 2)
    np.testing.assert_allclose(found[:, 0, 0], [1, 1, 2], rtol=1e-6)


@pytest.mark.parametrize(("mode", "shape"), [("RGB", (3, 2, 3)), ("L", (1, 2, 3))])
@pytest.mark.parametrize("source", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_becomes_the_one_asked_for(mode, shape, source):
    picture = Image.new("L", (3, 2), 255).convert(source)
    found = to_input(decode(encoded(picture), PATH), ImageConfig(size=(2, 3), mode=mode), PATH)
    assert found.shape == shape
    np.testing.assert_allclose(found, 1, rtol=1e-6)


def test_transparency_is_dropped():
    picture = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    found = to_input(decode(encoded(picture), PATH), ImageConfig(size=(2, 2), scale=1.0), PATH)
    assert found[:, 0, 0].tolist() == [10, 20, 30]


def test_resize_is_height_by_width_and_antialiased():
    stripes = np.tile([0, 255], (8, 16))
    assert prepared(stripes, size=(4, 16), mode="L", scale=1.0).shape == (1, 4, 16)
    # Skipping every other column would give all black or all white.
    assert 100 < prepared(stripes, size=(4, 8), mode="L", scale=1.0).mean() < 155
    nearest = prepared(stripes, size=(4, 16), mode="L", scale=1.0, resize="nearest")
    assert set(np.unique(nearest)) <= {0, 255}


@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "nearest"])
def test_an_even_picture_stays_even(resize):
    found = prepared(np.full((9, 5), 40), size=(13, 4), mode="L", scale=1.0, resize=resize)
    assert found.shape == (1, 13, 4)
    assert (found == 40).all()


def test_crop_keeps_the_proportions_and_the_centre():
    columns = np.tile(np.arange(40), (10, 1))
    found = prepared(columns, size=(10, 10), mode="L", scale=1.0, crop="center")
    assert found[0, 0].tolist() == list(range(15, 25))
    # Twice as small: the shorter side becomes 5, the crop is the middle of 20 columns.
    smaller = prepared(columns, size=(5, 5), mode="L", scale=1.0, crop="center", resize="nearest")
    assert 14 < smaller.mean() < 25


def test_crop_without_resize():
    columns = np.tile(np.arange(40), (12, 1))
    found = prepared(columns, size=(10, 4), mode="L", scale=1.0, crop="center", resize="none")
    assert found[0, 0].tolist() == [18, 19, 20, 21]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_a_crop_always_has_the_size_asked_for(height, width, wanted_height, wanted_width):
    found = prepared(
        np.full((height, width), 7), size=(wanted_height, wanted_width), mode="L", scale=1.0, crop="center"
    )
    assert found.shape == (1, wanted_height, wanted_width)
    # Every pixel comes from the picture, none from a border that a crop outside would add.
    assert (found == 7).all()


@pytest.mark.parametrize(
    ("shape", "crop", "message"),
    [((5, 4), "none", "it must have 4 and 4"), ((3, 9), "center", "it must have at least 4 and 4")],
)
def test_other_sizes_when_nothing_may_be_resized(shape, crop, message):
    with pytest.raises(DataError, match=message) as error:
        prepared(np.zeros(shape), size=(4, 4), mode="L", resize="none", crop=crop)
    assert str(PATH) in error.value.message


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_known_formats(kind):
    picture = decode(encoded(Image.new("L", (4, 4), 128), kind), PATH)
    found = to_input(picture, ImageConfig(size=(4, 4), mode="L", scale=1.0), PATH)
    np.testing.assert_allclose(found, 128, atol=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in a known format"),
        (encoded(Image.new("I;16", (2, 2), 4000)), "mode 'I;16', not 8 bits"),
        (encoded(Image.new("F", (2, 2), float("nan")), "TIFF"), "mode 'F', not 8 bits"),
        (
            encoded(Image.new("L", (2, 2)), "GIF", save_all=True, append_images=[Image.new("L", (2, 2), 255)]),
            "2 frames or pages",
        ),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:500], "cannot be read as an image"),
        (encoded(Image.effect_noise((64, 64), 50), "PNG")[:-500], "cannot be read as an image"),
    ],
)
def test_pictures_that_cannot_be_used(content, message):
    with pytest.raises(DataError, match=message) as error:
        decode(content, PATH)
    assert str(PATH) in error.value.message
    assert error.value.hint


def test_the_second_picture_of_a_phone_is_no_animation():
    content = encoded(Image.new("L", (8, 8), 30), "MPO", save_all=True, append_images=[Image.new("L", (4, 4), 200)])
    picture = decode(content, PATH)
    assert picture.format == "MPO"
    assert picture.size == (8, 8)


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    # Pillow itself warns of the first and refuses the second.
    for side in (9_500, 20_000):
        head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        with pytest.raises(DataError, match="more than 64,000,000 pixels"):
            decode(content, PATH)


def test_a_thread_of_a_picture_is_not_blown_up(monkeypatch):
    monkeypatch.setattr(image_pixels, "MAX_PIXELS", 100_000)
    with pytest.raises(DataError, match="so long and thin that it would be resized to 50 x 25000"):
        prepared(np.zeros((1, 500)), size=(50, 50), mode="L", crop="center")


def test_rotation_is_read_from_the_metadata():
    exif = Image.Exif()
    exif[0x0112] = 3
    assert rotated(decode(encoded(Image.new("L", (2, 2)), "JPEG", exif=exif), PATH))
    assert not rotated(decode(encoded(Image.new("L", (2, 2)), "JPEG"), PATH))

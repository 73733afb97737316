import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dmlcore.core.errors import DataError
from tests.datasets.photo_files import decode_center_crop

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encode(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def square(image, size=8, **options):
    return decode_center_crop(encode(image, **options), size, name="a/b.png")


def inside(image, **options):
    """Without the rim, where the resize mixes in what was cut off."""
    return square(image, **options)[1:-1, 1:-1]


def stripes():
    """12 x 4: red, green, blue squares side by side."""
    return Image.fromarray(np.repeat(np.array([[RED, GREEN, BLUE]], np.uint8), 4, axis=1).repeat(4, axis=0))


def test_the_centre_of_a_wide_image_is_cut_out():
    assert (inside(stripes()) == GREEN).all()


def test_the_centre_of_a_tall_image_is_cut_out():
    assert (inside(stripes().rotate(90, expand=True)) == GREEN).all()


def test_the_result_is_the_short_side_resized_and_the_centre_cropped():
    values = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    smooth = Image.fromarray(values).resize((80, 40), Image.Resampling.BICUBIC).reduce(2).resize((80, 40))
    expected = np.asarray(smooth.resize((40, 20), Image.Resampling.BICUBIC))[:, 10:30].astype(int)
    found = square(smooth, size=20).astype(int)
    assert np.abs(found - expected)[:, 2:-2].max() <= 1


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # with_progress turned by 90 degrees clockwise
    halves = Image.fromarray(np.array([[RED, BLUE]], np.uint8).repeat(8, axis=1).repeat(16, axis=0))
    upright = square(halves, size=16, exif=exif)
    assert (upright[:7] == RED).all()
    assert (upright[9:] == BLUE).all()


@pytest.mark.parametrize(
    ("mode", "format", "colour", "expected"),
    [
        ("L", "PNG", 100, (100, 100, 100)),
        ("1", "PNG", 1, (255, 255, 255)),
        ("LA", "PNG", (100, 255), (100, 100, 100)),
        ("RGBA", "PNG", (0, 0, 0, 0), (255, 255, 255)),  # transparent: white, not the hidden black
        ("I;16", "PNG", 100 * 256 + 7, (100, 100, 100)),
        ("CMYK", "TIFF", (0, 255, 255, 0), RED),
        ("CMYK", "JPEG", (0, 255, 255, 0), (254, 0, 0)),
        ("RGB", "WEBP", GREEN, (0, 254, 0)),
        ("RGB", "BMP", GREEN, GREEN),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(mode, format, colour, expected):
    found = square(Image.new(mode, (9, 9), colour), format=format)
    assert found.dtype == np.uint8
    assert found.shape == (8, 8, 3)
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_a_palette_becomes_its_colours():
    assert (inside(stripes().quantize(3)) == GREEN).all()


def test_a_palette_with_a_transparent_colour_is_laid_on_white():
    palette = stripes().quantize(3)
    clear = palette.getpixel((6, 2))
    assert (inside(palette, transparency=clear) == 255).all()


def test_a_long_thin_image_is_no_burden():
    assert square(Image.new("L", (1, 60_000), 9)).shape == (8, 8, 3)


def bomb(side):
    """A PNG of a few bytes that claims side x side pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused(side):
    with pytest.raises(DataError, match=r"'a/bomb.png': an image must have at most 50,000,000 pixels"):
        decode_center_crop(bomb(side), 8, name="a/bomb.png")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        encode(Image.effect_noise((64, 64), 50))[:900],
        encode(Image.new("RGB", (9, 9)), "PCX"),  # Pillow reads it, but it is not on the list
    ],
    ids=["empty", "text", "postscript", "cut", "another format"],
)
def test_what_is_no_image_is_refused_by_name(data):
    with pytest.raises(DataError, match=r"'a/broken.jpg': unreadable image"):
        decode_center_crop(data, 8, name="a/broken.jpg")

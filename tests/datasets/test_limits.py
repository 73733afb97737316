"""Images that cost too much are refused by their header, each by its name."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.prepare.image_decoding import decode
from dmlcore.datasets.prepare.jpeg_files import MAX_SCANS, scans
from dmlcore.datasets.prepare.limits import webp_size
from tests.datasets.photo_files import encode, photograph

PHOTO = photograph(0, (64, 48))


def picture(data, **settings):
    return decode(data, PreprocessConfig(**settings), name="a/bomb.jpg").picture


def png(width, height):
    """A PNG file of a few bytes that claims these pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("size", [(10_000, 9_000), (1, 80_000_000), (60_000, 60_000)], ids=str)
def test_too_many_pixels_are_refused(size):
    with pytest.raises(DataError, match=r"'a/bomb.jpg': an image must have at most 50,000,000 pixels"):
        picture(png(*size))


def test_a_side_has_a_limit_of_its_own():
    with pytest.raises(DataError, match=r"at most 100,000 pixels, got 1 x 40,000,000"):
        picture(png(1, 40_000_000))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_the_limit_is_a_setting(kind):
    data = encode(PHOTO, kind)
    assert picture(data, max_pixels=64 * 48).size == (64, 48)
    with pytest.raises(
        DataError, match=r"at most 3,071 pixels \(`max_pixels`\), got 64 x 48; make it smaller, or"
    ):
        picture(data, max_pixels=64 * 48 - 1)


def riff(kind, data):
    body = b"WEBP" + kind + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


WEBP = {
    "VP8X": riff(b"VP8X", b"\x02\0\0\0" + 2 * (16382).to_bytes(3, "little") + bytes(20)),
    "VP8L": riff(b"VP8L", b"\x2f" + (16382 | 16382 << 14).to_bytes(4, "little") + bytes(20)),
    "VP8 ": riff(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(20)),
}


@pytest.mark.parametrize("kind", WEBP)
def test_the_canvas_of_a_webp_file_is_not_allocated(kind):
    assert webp_size(WEBP[kind]) == (16383, 16383)
    with pytest.raises(DataError, match=r"at most 50,000,000 pixels .*got 16,383 x 16,383"):
        picture(WEBP[kind])


@pytest.mark.parametrize(
    "options", [{"quality": 80}, {"lossless": True}, {"save_all": True, "append_images": [PHOTO.rotate(90)]}]
)
def test_the_size_of_a_webp_file_is_that_of_pillow(options):
    for image in (PHOTO, PHOTO.convert("RGBA")):
        assert webp_size(encode(image, "WEBP", **options)) == (64, 48)


def test_scans_are_counted_before_they_are_decoded():
    whole = encode(PHOTO, "JPEG", progressive=True)
    starts = scans(whole)
    assert 3 < len(starts) < MAX_SCANS
    bomb = whole[:-2] + whole[starts[-1] : -2] * 1600 + whole[-2:]
    assert len(scans(bomb)) == len(starts) + 1600
    with pytest.raises(DataError, match=r"'a/bomb.jpg': a JPEG file must have at most 64 scans, got more"):
        picture(bomb)


@pytest.mark.parametrize("place", ["a comment", "after the end"])
def test_what_only_looks_like_scans_is_not_counted(place):
    whole, fakes = encode(PHOTO, "JPEG"), b"\xff\xda\0\x08" * 500
    comment = b"\xff\xfe" + struct.pack(">H", len(fakes) + 2) + fakes
    data = whole[:2] + comment + whole[2:] if place == "a comment" else whole + fakes
    np.testing.assert_array_equal(np.asarray(picture(data)), np.asarray(Image.open(io.BytesIO(whole))))

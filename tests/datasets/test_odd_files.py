"""Readable photographs with something odd in them: tags of EXIF, a missing end."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.prepare.catalogue import Catalogue
from dmlcore.datasets.prepare.image_decoding import NO_END, decode, pillow_for_threads
from tests.datasets.photo_files import encode, photo_catalogue, photograph

PHOTO = photograph(0, (64, 48))
SHORT, LONG, RATIONAL, ASCII, UNDEFINED = 3, 4, 5, 2, 7
ORIENTATION, X_RESOLUTION, GPS, MAKER = 0x0112, 0x011A, 0x8825, 0x927C


def exif(*entries):
    """A block of EXIF of these entries (tag, type, count, 4 bytes), with the rest of the data after them."""
    body = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in sorted(entries))
    rest = struct.pack("<iI", -1, 0)
    return (
        b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + struct.pack("<I", 0) + rest * 20
    )


def turned(value):
    return ORIENTATION, SHORT, 1, struct.pack("<HH", value, 0)


ODD = {
    "XResolution -1/0": (X_RESOLUTION, RATIONAL, 1, struct.pack("<I", 40)),
    "XResolution as text": (X_RESOLUTION, ASCII, 3, b"72\0\0"),
    "GPS of the wrong type": (GPS, ASCII, 4, b"gps\0"),
    "GPS beyond the file": (GPS, LONG, 1, struct.pack("<I", 0xFFFFFF)),
    "a count of 2^31": (MAKER, UNDEFINED, 1 << 31, struct.pack("<I", 8)),
    "an unknown type": (MAKER, 99, 1, b"abcd"),
}


def picture(data, **settings):
    with pillow_for_threads():
        found = decode(data, PreprocessConfig(**settings), name="a/b.jpg")
    return np.asarray(found.picture), found.note


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("odd", ODD)
def test_the_orientation_is_read_beside_odd_tags(kind, odd):
    data = encode(PHOTO, kind, exif=exif(turned(6), ODD[odd]))
    straight = Image.open(io.BytesIO(encode(PHOTO, kind))).convert("RGB")
    np.testing.assert_array_equal(
        picture(data)[0], np.asarray(straight.transpose(Image.Transpose.ROTATE_270))
    )


@pytest.mark.parametrize(
    "block",
    [
        exif((ORIENTATION, ASCII, 2, b"6\0\0\0")),
        exif(turned(9)),
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0no tiff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(30),
    ],
    ids=["text", "out of range", "beyond the end", "no header", "cut"],
)
def test_without_a_valid_orientation_the_picture_stays_as_it_is(block):
    found, _ = picture(encode(PHOTO, "JPEG", exif=block))
    np.testing.assert_array_equal(found, picture(encode(PHOTO, "JPEG"))[0])


OPTIONS = [{}, {"restart_marker_blocks": 1}, {"restart_marker_rows": 1}, {"optimize": True, "quality": 95}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_marker_is_complete_and_noted(mode, options):
    whole = encode(PHOTO.convert(mode), "JPEG", **options)
    for lost in (1, 2):
        found, note = picture(whole[:-lost])
        np.testing.assert_array_equal(found, picture(whole)[0])
    assert note == NO_END


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_jpeg_without_a_part_of_its_picture_is_refused(options):
    whole = encode(PHOTO, "JPEG", **options)
    for length in range(len(whole) * 2 // 3, len(whole) - 2):
        with pytest.raises(DataError, match=r"'a/b.jpg': unreadable image.*truncated"):
            picture(whole[:length])


def test_a_progressive_one_may_lack_scans_and_is_refused():
    with pytest.raises(DataError, match="truncated"):
        picture(encode(PHOTO, "JPEG", progressive=True)[:-2])


def test_a_setting_refuses_them(prepared):
    catalogue = photo_catalogue()
    files = {item: encode(photograph(n, (32, 24)), "JPEG") for n, item in enumerate(catalogue.items)}
    files[catalogue.items[7]] = files[catalogue.items[7]][:-2]
    catalogue = Catalogue(catalogue.items, files.__getitem__, 3, "", "")
    summary = prepared(catalogue, PreprocessConfig(image_size=8)).summary
    assert summary["notes"] == [f"1 image(s): {NO_END}: {catalogue.items[7].source!r}"]
    assert summary["unreadable"]["images"] == 0
    strict = PreprocessConfig(image_size=8, accept_missing_end=False)
    with pytest.raises(DataError, match=f"{catalogue.items[7].source!r}: unreadable image"):
        prepared(catalogue, strict)
    lenient = strict.model_copy(update={"max_broken_share": 0.05})
    assert prepared(catalogue, lenient).summary["unreadable"]["images"] == 1

"""Images of more than 8 bits a channel: none turns black without a word."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.prepare.catalogue import Catalogue, Item
from dmlcore.datasets.prepare.image_decoding import decode
from tests.datasets.photo_files import encode

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def picture(data, **settings):
    found = decode(data, PreprocessConfig(**settings), name="a/b.png")
    return np.asarray(found.picture), found.note


def ramp(most, channels=None, dtype=np.uint16):
    values = np.linspace(0, most, 6 * 8).reshape(6, 8)
    values = values if channels is None else np.stack([np.roll(values, k, 1) for k in range(channels)], 2)
    return values.astype(dtype)


def png16(values):
    """Pillow writes no colours of 16 bits."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = COLOUR_TYPES[1 if values.ndim == 2 else values.shape[2]]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff16(values):
    """A little-endian TIFF file of one uncompressed strip of RGB."""
    height, width = values.shape[:2]
    after = 8 + 2 + 12 * 9 + 4
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, after), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, after + 6), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, values.nbytes)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0\x08\0\0\0" + directory + struct.pack("<3H", 16, 16, 16) + values.astype("<u2").tobytes()


@pytest.mark.parametrize("most", [255, 200])
@pytest.mark.parametrize(
    ("format", "dtype"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.int32)], ids=str
)
def test_grey_values_under_256_stay_as_they_are(format, dtype, most):
    values = ramp(most, dtype=dtype)
    found, note = picture(encode(Image.fromarray(values), format))
    np.testing.assert_array_equal(found, np.repeat(values[:, :, None], 3, axis=2))
    assert note == "16 bits a channel, of which 8 are used: read as 8 bits"


def test_twelve_bits_in_sixteen_are_no_black_picture():
    values = ramp(4095)
    found, note = picture(encode(Image.fromarray(values)))
    np.testing.assert_array_equal(found[:, :, 0], values >> 4)
    assert "of which 12 are used" in note


def test_the_full_range_is_read_as_ever_and_needs_no_note():
    values = ramp(65535)
    found, note = picture(encode(Image.fromarray(values)))
    np.testing.assert_array_equal(found[:, :, 0], values >> 8)
    assert note == ""


@pytest.mark.parametrize("write", [png16, tiff16], ids=["png", "tiff"])
@pytest.mark.parametrize(("most", "bits"), [(255, 8), (4095, 12), (65535, 16)])
def test_colours_of_sixteen_bits_too(write, most, bits):
    values = ramp(most, channels=3)
    found, note = picture(write(values))
    np.testing.assert_array_equal(found, values >> (bits - 8))
    assert (note == "") == (bits == 16)


def test_deep_colours_with_transparency_are_laid_on_white():
    values = ramp(255, channels=4)
    values[..., 3] = 65535
    np.testing.assert_array_equal(picture(png16(values))[0], values[..., :3])
    values[..., 3] = 0
    assert (picture(png16(values))[0] == 255).all()
    with pytest.raises(DataError, match="16 bits of grey with transparency"):
        picture(png16(np.stack([ramp(255), np.full((6, 8), 65535)], axis=2)))


def test_the_settings_state_the_bits_or_stretch():
    data = encode(Image.fromarray(ramp(200)))
    np.testing.assert_array_equal(picture(data, bit_depth=10)[0][:, :, 0], ramp(200) >> 2)
    assert picture(data, bit_depth=16)[0].max() == 0
    stretched, note = picture(data, bit_depth="stretch")
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert note == "values 0 to 200 were stretched to 0 to 255"
    with pytest.raises(DataError, match=r"must be whole numbers of 10 bits, got uint16, 0 to 4095"):
        picture(encode(Image.fromarray(ramp(4095))), bit_depth=10)


@pytest.mark.parametrize(
    "values",
    [ramp(1.0, dtype=np.float32), ramp(2e6, dtype=np.int32), ramp(900, dtype=np.int32) - 400],
    ids=["float", "20 bits", "negative"],
)
def test_other_values_are_refused_unless_stretched(values):
    data = encode(Image.fromarray(values), "TIFF")
    with pytest.raises(DataError, match=r"'a/b.png'.*whole numbers of 16 bits.*or to `stretch`"):
        picture(data)
    found, _ = picture(data, bit_depth="stretch")
    assert (found.min(), found.max()) == (0, 255)


def test_a_stated_range_is_kept():
    found, note = picture(b"P5 2 1 65535\n\x00\xff\x00\x00")
    assert (found.max(), note) == (0, "")


def test_they_are_noted_by_name_and_are_no_duplicates(prepared, capsys):
    """Two classes of 16-bit pictures under 256 were identical images: both black."""
    items = [Item(name, name, f"{name}/{k}.png", split_text=name) for name in "abcdefgh" for k in range(2)]
    random = np.random.default_rng(0)
    files = {
        item: encode(Image.fromarray(random.integers(0, 256, (9, 9)).astype(np.uint16))) for item in items
    }
    catalogue = Catalogue(tuple(items), files.__getitem__, 3, "", "")
    dataset = prepared(catalogue, PreprocessConfig(image_size=8))
    (note,) = dataset.summary["notes"]
    assert note.startswith("16 image(s): 16 bits a channel, of which 8 are used: read as 8 bits: 'a/0.png'")
    assert note in capsys.readouterr().err
    assert dataset.summary["duplicates"]["across_classes"] == 0

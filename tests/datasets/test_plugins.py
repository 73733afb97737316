"""HEIC and AVIF: read where Pillow or a plug-in can, and where neither can, the plug-in is named."""

from __future__ import annotations

import importlib.util
import struct

import numpy as np
import pytest
from PIL import Image, features

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.acquire import acquire_class_folders
from dmlcore.datasets.importers.image_folder import load_catalogue
from dmlcore.datasets.prepare.image_decoding import decode
from dmlcore.datasets.prepare.plugins import kind_of
from tests.datasets.photo_files import encode, photograph

PHOTO = photograph(0, (64, 48))
HEIF_HERE = importlib.util.find_spec("pillow_heif") is not None
AVIF_HERE = features.check("avif")


def box(major, *others):
    data = b"ftyp" + major + bytes(4) + b"".join(others)
    return struct.pack(">I", len(data) + 4) + data + bytes(40)


def picture(data, **settings):
    return decode(data, PreprocessConfig(**settings), name="a/b.heic").picture


def test_the_format_is_known_by_its_brands():
    assert kind_of(box(b"heic", b"mif1", b"heic")) == "HEIF"
    assert kind_of(box(b"mif1", b"mif1", b"heic")) == "HEIF"
    assert kind_of(box(b"mif1", b"mif1", b"avif")) == "AVIF"
    assert kind_of(box(b"isom", b"mp41")) is None
    assert kind_of(encode(PHOTO, "JPEG")) is None


@pytest.mark.skipif(HEIF_HERE, reason="pillow-heif is installed")
def test_a_missing_plug_in_is_named_and_no_broken_image(tmp_path):
    with pytest.raises(
        DataError, match=r"'a/b.heic': HEIF files need the package pillow-heif; install it: pip"
    ):
        picture(box(b"heic", b"mif1"), max_broken_share=0.9)
    for name in "ab":
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "1.HEIC").write_bytes(box(b"heic"))
    acquire_class_folders(tmp_path / "source", tmp_path / "raw")
    with pytest.raises(DataError, match=r"'a/1.HEIC': HEIF files need the package pillow-heif"):
        load_catalogue(tmp_path / "raw", PreprocessConfig())


@pytest.mark.skipif(not HEIF_HERE, reason="pillow-heif is not installed")
def test_heic_is_read_upright_and_within_the_limits():
    import pillow_heif

    pillow_heif.register_heif_opener()
    # Of a HEIC file the container says how it is turned; readers leave the orientation in EXIF out.
    check_readable("HEIF", turned=PHOTO)


@pytest.mark.skipif(not AVIF_HERE, reason="this Pillow does not read AVIF")
def test_avif_is_read_upright_and_within_the_limits():
    check_readable("AVIF", turned=PHOTO.transpose(Image.Transpose.ROTATE_270))


def check_readable(kind, turned):
    exif = Image.Exif()
    exif[0x0112] = 6
    for data, expected in (
        (encode(PHOTO, kind, quality=95), PHOTO),
        (encode(PHOTO, kind, quality=95, exif=exif), turned),
    ):
        found = picture(data)
        assert (found.mode, found.size) == ("RGB", expected.size)
        assert np.abs(np.asarray(found).astype(float) - np.asarray(expected)).mean() < 8
        with pytest.raises(DataError, match=r"at most 3,071 pixels \(`max_pixels`\), got"):
            picture(data, max_pixels=64 * 48 - 1)
        with pytest.raises(DataError, match=r"'a/b\.heic': unreadable image"):
            picture(data[: len(data) // 2])

"""What one untrusted image file may cost, checked on its header, before anything allocates its pixels."""

from __future__ import annotations

from PIL import Image

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.prepare.jpeg_files import MAX_SCANS, is_jpeg, too_many_scans

MAX_SIDE = 100_000
"""Pixels. Pillow holds 8 bytes for each row, and a few copies of them: of 80 million rows more than of the pixels."""


class UnreadableImageError(DataError):
    """One image that cannot be decoded; `max_broken_share` says how many a data set may leave out."""


class TooCostlyError(UnreadableImageError):
    """One image that could be decoded, at too high a price."""


def check_file(data: bytes, config: PreprocessConfig, *, name: str) -> None:
    """Refuse what costs too much before Pillow has opened it.

    Raises:
        TooCostlyError: a WebP file of more than `max_pixels` or a JPEG file of more than MAX_SCANS scans.
    """
    # Pillow allocates the canvas of a WebP file, three times, when it opens it.
    if size := webp_size(data):
        check_size(size, config, name=name)
    if is_jpeg(data) and too_many_scans(data):
        raise TooCostlyError(
            f"{name!r}: a JPEG file must have at most {MAX_SCANS} scans, got more; save it anew"
        )


def check_size(size: tuple[int, int], config: PreprocessConfig, *, name: str) -> None:
    """Refuse an image of more than `max_pixels`, or with a side of more than MAX_SIDE.

    Raises:
        TooCostlyError: with both numbers.
    """
    width, height = size
    if width * height > config.max_pixels:
        raise TooCostlyError(
            f"{name!r}: an image must have at most {config.max_pixels:,} pixels (`max_pixels`), "
            f"got {width:,} x {height:,}; make it smaller, or raise `max_pixels`"
        )
    if max(size) > MAX_SIDE:
        raise TooCostlyError(
            f"{name!r}: a side of an image must have at most {MAX_SIDE:,} pixels, got {width:,} x {height:,}; cut it"
        )


def refused_by_pillow(error: Exception, config: PreprocessConfig, *, name: str) -> TooCostlyError | None:
    """Return the error of an image that Pillow refuses to open for its size, which it does not tell."""
    if not isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return None
    return TooCostlyError(
        f"{name!r}: an image must have at most {config.max_pixels:,} pixels (`max_pixels`): {error}; make it smaller"
    )


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a WebP file by its header; None: it is none.

    Reference: RFC 9649, sections 2.4 to 2.7.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width, height

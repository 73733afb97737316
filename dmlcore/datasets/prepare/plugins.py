"""HEIC and AVIF, the formats of phones: Pillow may need a plug-in for them, which is named where it is missing."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from pathlib import PurePosixPath
from typing import Literal

from PIL import Image, features

from dmlcore.core.errors import DataError

Kind = Literal["HEIF", "AVIF"]

PLUGINS: dict[Kind, tuple[str, str]] = {
    "HEIF": ("pillow_heif", "pillow-heif"),
    "AVIF": ("pillow_avif", "pillow-avif-plugin"),
}
"""By the name that Pillow gives the format: the plug-in's module and package."""

AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

BY_SUFFIX: dict[str, Kind] = {".heic": "HEIF", ".heif": "HEIF", ".avif": "AVIF"}


def kind_of(data: bytes) -> Kind | None:
    """Return which of the two formats a file has by its first box; None: neither.

    Reference: ISO/IEC 14496-12, section 4.3, the box `ftyp` and its brands.
    """
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12]} | {data[at : at + 4] for at in range(16, end, 4)}
    # AVIF first: its files have the brand of the container, mif1, too.
    return "AVIF" if brands & AVIF_BRANDS else "HEIF" if brands & HEIF_BRANDS else None


def require_plugins(names: Iterable[str]) -> None:
    """Refuse files that no plug-in can read, by their suffixes, before any of them is decoded.

    Raises:
        DataError: with the first such file and the package to install.
    """
    for name in names:
        if kind := BY_SUFFIX.get(PurePosixPath(name).suffix.lower()):
            require(kind, name=name)


def require(kind: Kind, *, name: str) -> None:
    """Make Pillow read a format.

    Raises:
        DataError: neither Pillow nor an installed plug-in reads it; not a broken image, but a fault of this machine.
    """
    if not _is_readable(kind):
        package = PLUGINS[kind][1]
        raise DataError(
            f"{name!r}: {kind} files need the package {package}; install it: pip install {package}"
        )


@cache
def _is_readable(kind: Kind) -> bool:
    if kind == "AVIF" and features.check("avif"):
        return True
    try:
        module = importlib.import_module(PLUGINS[kind][0])
    except ImportError:
        return False
    if kind == "HEIF":
        module.register_heif_opener()
    return kind in Image.OPEN

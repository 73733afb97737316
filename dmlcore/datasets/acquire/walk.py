"""The files below an untrusted folder of images, by one rule for the import and for `dmlcore embed`.

Hidden files and what desktops leave behind are left out. Links are followed where they stay within the folder. A name
that is no line of text, a link out of the folder and a link in a circle are errors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dmlcore.core.errors import DataError
from dmlcore.core.text import is_valid_name

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".heic", ".heif", ".avif"),
)

CLUTTER = ("Thumbs.db", "desktop.ini")
"""What desktops leave in folders; left out like hidden files (.DS_Store)."""

REFUSED = "control characters, separators of lines or characters that turn the direction of writing"

VISITS = 100
"""How often links may lead to one folder: a few links in each of many folders would multiply."""


def is_image(path: Path) -> bool:
    """Return whether a path is a file with the suffix of an image."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def entries(folder: Path, root: Path) -> list[Path]:
    """Return what is in a folder, sorted.

    Args:
        folder: to be listed.
        root: the folder that links may not leave.

    Raises:
        DataError: a name or a link breaks a rule.
    """
    top = root.resolve()
    found = sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in CLUTTER
    )
    for path in found:
        check_name(path)
        if not path.resolve().is_relative_to(top):
            raise DataError(f"{path}: a link must not lead out of {root}; copy what it leads to instead")
    return found


def check_name(path: Path) -> None:
    """Refuse a path whose name is no line of text, or that no file could hold as UTF-8.

    Raises:
        DataError: with the name as it is.
    """
    if not is_valid_name(path.name) or any("\ud800" <= each <= "\udfff" for each in str(path)):
        raise DataError(f"{str(path)!r}: a name must be UTF-8 text in one line, without {REFUSED}; rename it")


def files_below(folder: Path, root: Path) -> Iterator[Path]:
    """Yield the files below a folder, and what is neither file nor folder, sorted by path.

    Raises:
        DataError: as `entries`, or a link leads to a folder that holds it.
    """
    yield from _walk(folder, root, (), Counter())


def _walk(folder: Path, root: Path, above: tuple[Path, ...], visits: Counter[Path]) -> Iterator[Path]:
    real = folder.resolve()
    visits[real] += 1
    if real in above or visits[real] > VISITS:
        raise DataError(
            f"{folder}: links must not lead in a circle, or {VISITS} times to one folder; remove some"
        )
    for path in entries(folder, root):
        if path.is_dir():
            yield from _walk(path, root, (*above, real), visits)
        else:
            yield path

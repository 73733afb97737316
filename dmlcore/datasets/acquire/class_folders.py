"""A folder with one folder of images per class, copied into `raw/NAME/images.tar`.

The folder is untrusted input: links out of it, files that are no images and names that are no text are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dmlcore.core.errors import DataError
from dmlcore.core.io import atomic_folder
from dmlcore.datasets.acquire.image_decoding import SUFFIXES
from dmlcore.datasets.acquire.raw_tar import IMAGES_TAR, write_raw_tar

CLUTTER = ("Thumbs.db", "desktop.ini")
"""What desktops leave in folders; left out like hidden files (.DS_Store)."""


def acquire_class_folders(source: Path, folder: Path) -> None:
    """Write the images of `source` (class folders) and its CSV files to `folder/images.tar`, sorted and undated.

    The same files give the same bytes, so that DVC sees exactly when an image, a name or a super-class changes.

    Raises:
        DataError: naming the file that breaks a rule.
    """
    paths = [*_tables(source), *_images(source)]
    with atomic_folder(folder) as temporary:
        write_raw_tar(
            temporary / IMAGES_TAR,
            ((path.relative_to(source).as_posix(), path.read_bytes()) for path in paths),
        )


def _tables(source: Path) -> list[Path]:
    return sorted(
        path for path in _entries(source, source) if path.suffix.lower() == ".csv" and path.is_file()
    )


def _images(source: Path) -> list[Path]:
    folders = sorted(path for path in _entries(source, source) if path.is_dir())
    if not folders:
        raise DataError(f"{source}: must hold one folder of images a class, got no folder")
    return [image for folder in folders for image in _class_images(folder, source)]


def _class_images(folder: Path, source: Path) -> list[Path]:
    images = sorted(_entries(folder, source))
    if not images:
        raise DataError(f"{folder}: a class folder must hold images, got none; remove the folder")
    for path in images:
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            raise DataError(f"{path}: a class folder holds images only ({', '.join(SUFFIXES)}); move it away")
    return images


def _entries(folder: Path, source: Path) -> Iterable[Path]:
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; `source` names the folder of class folders, relative to data/"
        )
    root = source.resolve()
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in CLUTTER:
            continue
        if not path.name.isprintable():
            # What is no UTF-8 arrives as lone surrogates, which are not printable either.
            raise DataError(f"{str(path)!r}: a name must be printable UTF-8 text; rename it")
        if not path.resolve().is_relative_to(root):
            raise DataError(f"{path}: a link must not lead out of {source}; copy the file instead")
        yield path

"""A data set -> `raw/NAME`, by kind: its published archives, a folder of class folders, the fonts inside matplotlib."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib
from rich.console import Console
from rich.progress import track

from dmlcore.config.base import unique_keys
from dmlcore.core.errors import DataError
from dmlcore.core.hashing import file_sha256
from dmlcore.core.io import atomic_folder
from dmlcore.datasets.acquire.folders import read_bounded
from dmlcore.datasets.acquire.locate import Found, obtain, search_folders
from dmlcore.datasets.acquire.raw_tar import IMAGES_TAR, write_raw_tar
from dmlcore.datasets.acquire.sources import SOURCE, Archive, read_source
from dmlcore.datasets.acquire.unpack import members
from dmlcore.datasets.acquire.walk import SUFFIXES, entries, files_below, is_image


def acquire(source_file: Path, folder: Path, archives: str | None = None) -> None:
    """Find or download the archives and stream the members that the source keeps into `folder/images.tar`.

    Args:
        source_file: the data set's `Source`.
        folder: written atomically; the same archives give the same bytes.
        archives: a folder in which the archives may be.

    Raises:
        DataError: an archive cannot be had, is not the published one, or has a forbidden member.
    """
    source = read_source(source_file)
    found = obtain(source, search_folders(archives))
    images = sum(counts.images for counts in source.expected.values())
    with atomic_folder(folder) as temporary:
        files = track(_archived(found), "unpacking", total=images, console=Console(stderr=True))
        write_raw_tar(temporary / IMAGES_TAR, files)
        shutil.copyfile(source_file, temporary / SOURCE)


def _archived(found: Iterable[Found]) -> Iterator[tuple[str, bytes]]:
    seen: dict[str, Archive] = {}
    for archive, path in found:
        for name, data in members(archive, path):
            # Within one archive `members` itself refuses a second one.
            if seen.setdefault(name, archive) is not archive:
                raise DataError(
                    f"{archive.file}, member {name!r}: another archive of the data set has it too"
                )
            yield name, data


def acquire_class_folders(source: Path, folder: Path) -> None:
    """Write the images of `source` (one folder a class) and its CSV files to `folder/images.tar`, sorted and undated.

    The source is untrusted: links that leave it, files that are not images and names of more than a line are
    refused. The same files give the same bytes: DVC sees exactly when an image, a name or a super-class changes.

    Raises:
        DataError: a file breaks a rule; the message names it.
    """
    if not source.is_dir():
        raise DataError(
            f"{source}: no such folder; `source` names the folder of class folders, relative to data/"
        )
    found = entries(source, source)
    tables = [path for path in found if path.suffix.lower() == ".csv" and path.is_file()]
    folders = [path for path in found if path.is_dir()]
    if not folders:
        raise DataError(f"{source}: must hold one folder of images per class, got no folder")
    paths = [*tables, *(image for each in folders for image in _class_images(each, source))]
    with atomic_folder(folder) as temporary:
        write_raw_tar(
            temporary / IMAGES_TAR,
            ((path.relative_to(source).as_posix(), read_bounded(path)) for path in paths),
        )


def _class_images(folder: Path, source: Path) -> list[Path]:
    # With those of deeper folders: whether they are classes is a setting of the stage preprocess.
    images = list(files_below(folder, source))
    if not images:
        raise DataError(f"{folder}: a class folder must hold images, got none; remove the folder")
    for path in images:
        if not is_image(path):
            raise DataError(f"{path}: a class folder holds images only ({', '.join(SUFFIXES)}); move it away")
    return images


def acquire_fonts(source: Path, folder: Path) -> None:
    """Copy the font files that `source` lists from the installed matplotlib to `folder`, each verified first.

    Args:
        source: JSON, `{"files": {file name: sha256}}`.
        folder: written atomically.

    Raises:
        DataError: a file is absent or has another checksum.
    """
    listed = _read_font_list(source)
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    with atomic_folder(folder) as temporary:
        for name, sha256 in listed.items():
            found = file_sha256(fonts / name) if (fonts / name).is_file() else "no such file"
            if found != sha256:
                raise DataError(
                    f"{name} of matplotlib {matplotlib.__version__}: sha256 must be {sha256}, got {found}; "
                    "install the matplotlib that the constraints file names"
                )
            shutil.copyfile(fonts / name, temporary / name)


def _read_font_list(source: Path) -> dict[str, str]:
    try:
        files = json.loads(source.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{source}: must be JSON {{"files": {{name: sha256}}}}: {error!r}') from None
    for name in files:
        if Path(name).name != name:
            raise DataError(f"{source}: a font must be a plain file name without folders, got {name!r}")
    return dict(files)


LOCAL = {"glyphs": acquire_fonts, "image_folder": acquire_class_folders}
"""Kinds that are made from files on this machine; every other kind is published as archives."""

"""The archives of a published data set -> `raw/NAME`: one `images.tar` and a copy of the `Source`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track

from dmlcore.core.errors import DataError
from dmlcore.core.io import atomic_folder
from dmlcore.datasets.acquire.locate import Found, obtain, search_folders
from dmlcore.datasets.acquire.raw_tar import IMAGES_TAR, write_raw_tar
from dmlcore.datasets.acquire.sources import SOURCE, read_source
from dmlcore.datasets.acquire.unpack import members


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
        files = track(_files(found), "unpacking", total=images, console=Console(stderr=True))
        write_raw_tar(temporary / IMAGES_TAR, files)
        shutil.copyfile(source_file, temporary / SOURCE)


def _files(found: Iterable[Found]) -> Iterator[tuple[str, bytes]]:
    seen: set[str] = set()
    for archive, path in found:
        names: set[str] = set()
        for name, data in members(archive, path):
            if name in seen:
                raise DataError(
                    f"{archive.file}, member {name!r}: another archive of the data set has it too"
                )
            names.add(name)
            yield name, data
        seen |= names

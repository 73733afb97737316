"""An archive that lies unpacked in a folder: pinned, and read as a stream of (name, bytes) like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from dmlcore.data.errors import DataError
from dmlcore.data.files import file_sha256
from dmlcore.data.sources import Archive


def folder_sha256(archive: Archive, folder: Path) -> str:
    """Sha256 of the lines `SHA256  NAME` of the kept files, by name: what sha256sum prints for them.

    Raises:
        DataError: a link.
    """
    digest = hashlib.sha256()
    for name, path in _kept(archive, folder):
        digest.update(f"{file_sha256(path)}  {name}\n".encode())
    return digest.hexdigest()


def folder_members(archive: Archive, folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a folder that the archive's `keep` patterns name, by name.

    Raises:
        DataError: a link, or more files or bytes than the archive's bounds.
    """
    total = 0
    for number, (name, path) in enumerate(_kept(archive, folder), start=1):
        total += path.stat().st_size
        if number > archive.members or total > archive.unpacked_bytes:
            raise DataError(
                f"{folder}: must hold at most {archive.members:,} files and {archive.unpacked_bytes:,} bytes; "
                f"{name!r} is beyond that; get the folder again"
            )
        yield name, path.read_bytes()


def _kept(archive: Archive, folder: Path) -> Iterator[tuple[str, Path]]:
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name in sorted(names):
        if names[name].is_symlink():
            raise DataError(f"{names[name]}: must be a file or a folder, got a link; copy what it points to")
        if names[name].is_file() and any(fnmatchcase(name, pattern) for pattern in archive.keep):
            yield name, names[name]

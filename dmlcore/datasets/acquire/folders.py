"""Archives that are unpacked in a folder, and single files of a folder, within bounds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from dmlcore.core.errors import DataError
from dmlcore.core.hashing import file_sha256
from dmlcore.datasets.acquire.sources import Archive

LARGEST_MEMBER = 512 << 20
"""Bytes of one member that may be in memory; the largest genuine one, CIFAR-100's training images, has 153 MB."""


def folder_sha256(archive: Archive, folder: Path) -> str:
    """Return the sha256 of the lines `SHA256  NAME` of the kept files, by name: what sha256sum prints for them.

    Raises:
        DataError: a link.
    """
    digest = hashlib.sha256()
    for name, path in _kept(archive, folder):
        digest.update(f"{file_sha256(path)}  {name}\n".encode())
    return digest.hexdigest()


def folder_members(archive: Archive, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a folder that match the archive's `keep` patterns, by name.

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
        yield name, read_bounded(path)


def read_bounded(path: Path) -> bytes:
    """Return the bytes of a file that is small enough for memory.

    Raises:
        DataError: more than LARGEST_MEMBER; a sparse file has them without being large on disk.
    """
    if (size := path.stat().st_size) > LARGEST_MEMBER:
        raise DataError(f"{path}: must have at most {LARGEST_MEMBER:,} bytes, got {size:,}; move it away")
    return path.read_bytes()


def _kept(archive: Archive, folder: Path) -> Iterator[tuple[str, Path]]:
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name in sorted(names):
        if names[name].is_symlink():
            raise DataError(f"{names[name]}: must be a file or a folder, got a link; copy its target here")
        if names[name].is_file() and any(fnmatchcase(name, pattern) for pattern in archive.keep):
            yield name, names[name]

"""`images.tar`: the raw files of a data set in one uncompressed tar, read by their offset."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dmlcore.core.errors import DataError

IMAGES_TAR = "images.tar"


def write_raw_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write named files to a tar without compression, dates or owners: the same files give the same bytes."""
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            forget_headers(tar)


def forget_headers(tar: tarfile.TarFile) -> None:
    """Drop the headers that `tarfile` collects: of a million members they would take 1 GB of memory."""
    tar.members.clear()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class RawTar:
    """The files of an `images.tar` by name."""

    path: Path
    members: Mapping[str, tuple[int, int]]
    """Where the bytes of each are in the tar: offset and length."""

    @classmethod
    def open(cls, path: Path) -> RawTar:
        """Read the table of contents of `images.tar`."""
        members: dict[str, tuple[int, int]] = {}
        with tarfile.open(path) as tar:
            for member in iter(tar.next, None):
                members[member.name] = member.offset_data, member.size
                forget_headers(tar)
        return cls(path, members)

    def read(self, name: str) -> bytes:
        """Return the bytes of one file. Thread-safe: each call opens the tar by itself.

        Raises:
            DataError: no such file.
        """
        if name not in self.members:
            raise DataError(f"{name!r}: no such file in {self.path}; it must be among the raw files")
        offset, length = self.members[name]
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

"""`images.tar`: the raw files of a data set, one after the other in one file, read by their offset."""

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
    with tarfile.open(path, "w") as pack:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            pack.addfile(member, io.BytesIO(data))
            _forget_headers(pack)


def _forget_headers(pack: tarfile.TarFile) -> None:
    # Else a million of them, 1 kB each, stay in memory.
    pack.members.clear()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class RawTar:
    """The files of a pack by their name."""

    path: Path
    places: Mapping[str, tuple[int, int]]
    """Offset and length of each file's bytes."""

    @classmethod
    def open(cls, path: Path) -> RawTar:
        """Read the table of contents of `images.tar`."""
        places: dict[str, tuple[int, int]] = {}
        with tarfile.open(path) as pack:
            while (member := pack.next()) is not None:
                places[member.name] = (member.offset_data, member.size)
                _forget_headers(pack)
        return cls(path, places)

    def read(self, name: str) -> bytes:
        """The bytes of one file; any number of threads may read at once.

        Raises:
            DataError: no such file.
        """
        if name not in self.places:
            raise DataError(f"{name!r}: no such file in {self.path}; it must be among the raw files")
        offset, length = self.places[name]
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

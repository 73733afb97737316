"""The members of an untrusted archive as a stream of (name, bytes).

Nothing is written to disk, and no size or name that the archive declares is trusted.
"""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Literal, Protocol

from dmlcore.core.errors import DataError
from dmlcore.core.text import is_valid_name
from dmlcore.datasets.acquire.folders import LARGEST_MEMBER, folder_members
from dmlcore.datasets.acquire.raw_tar import forget_headers
from dmlcore.datasets.acquire.sources import Archive

LARGEST_HEADER = 1 << 20
"""Bytes of a tar header of a long name or of attributes, which tarfile reads into memory at once."""

LONG_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)

BLOCK = 1 << 20
Kind = Literal["file", "folder", "special"]


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass
class _Bounded:
    """A file that counts the bytes read from it and raises beyond the archive's `unpacked_bytes`.

    Declared sizes are the attacker's: what counts is what the decompressor really yields.
    """

    file: _Readable
    archive: Archive
    member: str = "?"
    count: int = 0

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.count += len(data)
        if self.count > self.archive.unpacked_bytes:
            raise _fault(
                self.archive,
                self.member,
                f"the archive must unpack to at most {self.archive.unpacked_bytes:,} bytes; it holds more, so it is a "
                "zip bomb or not the published one",
            )
        return data


class _StrictTarInfo(tarfile.TarInfo):
    """A header that raises where it is damaged, absent or too large.

    tarfile takes a damaged one for the end of the archive, and reads a large one however large it says it is.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> tarfile.TarInfo:  # type: ignore[override]
        header = super().frombuf(buf, encoding, errors)
        if header.type in LONG_HEADERS and header.size > LARGEST_HEADER:
            raise tarfile.ReadError(
                f"a header must have at most {LARGEST_HEADER:,} bytes, got {header.size:,}"
            )
        return header

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # The block of zeros that ends a complete archive.
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no end of archive: {error}") from None


def members(archive: Archive, path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of an archive that match its `keep` patterns, in the archive's order.

    Hidden files (`.DS_Store`, `._x`, `__MACOSX/x`) are left out.

    Raises:
        DataError: damaged or truncated; a link or device; a name that is absolute, leads upwards or occurs twice; more
            bytes or members than the bounds; or a pattern that nothing matches. The message names archive and member.
    """
    found: set[str] = set()
    unmatched = set(archive.keep)
    for name, data in _checked(archive, path):
        if name in found:
            raise _fault(archive, name, "a name must occur once, got it twice")
        found.add(name)
        unmatched -= {pattern for pattern in unmatched if fnmatchcase(name, pattern)}
        yield name, data
    if unmatched:
        raise DataError(
            f"{archive.file}: must hold a member {min(unmatched)!r}, got none; get the archive again"
        )


def _checked(archive: Archive, path: Path) -> Iterator[tuple[str, bytes]]:
    if archive.folder:
        return folder_members(archive, path)
    if archive.inner is not None:
        return _inner_tar(archive, path, archive.inner)
    if archive.file.endswith(".zip"):
        return _zip(archive, path)
    if archive.file.endswith((".tar", ".tar.gz", ".tgz")):
        return _tar(archive, path)
    return _single(archive, path)


def _single(archive: Archive, path: Path) -> Iterator[tuple[str, bytes]]:
    name = archive.file.removesuffix(".gz")
    with _opened(path, compressed=name != archive.file) as file, _named(archive, lambda: name):
        data = _read_all(_Bounded(file, archive, name), name, archive)
    yield name, data


def _tar(archive: Archive, path: Path) -> Iterator[tuple[str, bytes]]:
    with _opened(path, compressed=not archive.file.endswith(".tar")) as file:
        yield from _tar_stream(archive, file)


def _tar_stream(archive: Archive, file: _Readable) -> Iterator[tuple[str, bytes]]:
    stream = _Bounded(file, archive)
    with _named(archive, lambda: stream.member):
        tar = tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictTarInfo)  # type: ignore[call-overload]  # noqa: SIM115
        for number, member in enumerate(iter(tar.next, None)):
            stream.member = member.name
            if name := _wanted(archive, number, member.name, _tar_kind(member)):
                yield name, _read_all(tar.extractfile(member), name, archive)
            forget_headers(tar)
        while stream.read(BLOCK):  # To the end of the gzip stream: its checksum comes last.
            pass


def _inner_tar(archive: Archive, path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a tar within a zip, without writing it to disk."""
    with _named(archive, lambda: pattern), zipfile.ZipFile(path) as zipped:
        found = [name for name in zipped.namelist() if fnmatchcase(name, pattern) and not _is_hidden(name)]
        if len(found) != 1:
            raise _fault(archive, pattern, f"must occur once, got {found[:5]}; get the archive again")
        with zipped.open(found[0]) as member:
            # Bounded as well: a gzip stream may end in any number of zeros, which decompress to nothing.
            packed = _Bounded(member, archive, found[0])
            plain = found[0].endswith(".tar")
            file: _Readable = packed if plain else gzip.GzipFile(fileobj=packed)  # type: ignore[call-overload]
            yield from _tar_stream(archive, file)


def _zip(archive: Archive, path: Path) -> Iterator[tuple[str, bytes]]:
    current = "its table of contents"
    count = 0
    with _named(archive, lambda: current), zipfile.ZipFile(path) as zipped:
        for number, member in enumerate(zipped.infolist()):
            current = member.filename
            if name := _wanted(archive, number, member.filename, _zip_kind(member)):
                with zipped.open(member) as file:
                    # One count over all members: each alone may be within the bound.
                    bounded = _Bounded(file, archive, name, count)
                    data = _read_all(bounded, name, archive)
                count = bounded.count
                yield name, data


def _tar_kind(member: tarfile.TarInfo) -> Kind:
    # A sparse file grows without bytes in the archive: no data set has one.
    regular = member.isreg() and not member.issparse()
    return "folder" if member.isdir() else "file" if regular else "special"


def _zip_kind(member: zipfile.ZipInfo) -> Kind:
    mode = stat.S_IFMT(member.external_attr >> 16)
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "special"
    return "folder" if member.is_dir() else "file"


def _wanted(archive: Archive, number: int, name: str, kind: Kind) -> str | None:
    """Return the name under which a member is kept, None if it is left out; refuse what no data set has."""
    if number >= archive.members:
        raise _fault(archive, name, f"the archive must hold at most {archive.members:,} members")
    if kind == "special":
        raise _fault(archive, name, "must be a file or a folder, got a link, a device or a sparse file")
    # Nothing is written under these names, but they become paths of the manifest and keys of images.tar.
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or not is_valid_name(name):
        raise _fault(archive, name, "a name must be text in one line and lead into the archive's folder")
    kept = "/".join(parts)
    matches = any(fnmatchcase(kept, pattern) for pattern in archive.keep)
    return kept if kind == "file" and matches and not _is_hidden(kept) else None


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _read_all(file: _Readable | None, name: str, archive: Archive) -> bytes:
    data = bytearray()
    while file is not None and (block := file.read(BLOCK)):
        data += block
        if len(data) > LARGEST_MEMBER:
            raise _fault(archive, name, f"must have at most {LARGEST_MEMBER:,} bytes, got more")
    return bytes(data)


@contextmanager
def _named(archive: Archive, member: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # The decoders raise every kind of error on damaged input.
        fault = f"damaged or truncated: {error!r}; get the archive again"
        raise _fault(archive, member(), fault) from error


def _fault(archive: Archive, member: str, fault: str) -> DataError:
    return DataError(f"{archive.file}, member {member!r}: {fault}")


def _opened(path: Path, *, compressed: bool) -> IO[bytes]:
    return gzip.open(path) if compressed else path.open("rb")  # type: ignore[return-value]

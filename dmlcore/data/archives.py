"""The archives of a published data set: found here or downloaded, and verified before anything opens them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from dmlcore.data.errors import DataError
from dmlcore.data.fetch import fetch
from dmlcore.data.files import Checksum, file_digest
from dmlcore.data.folders import folder_sha256
from dmlcore.data.sources import Archive, Source

ENVIRONMENT = "DMLCORE_ARCHIVES"
DOWNLOADS = Path("archives")
"""Where downloads go, relative to data/; git-ignored."""

Found = tuple[Archive, Path]


def places(archives: str | None) -> list[Path]:
    """The folders in which an archive may lie, in the order in which they are looked into.

    Args:
        archives: the folder that the data set's section of params.yaml names.
    """
    named = [archives, os.environ.get(ENVIRONMENT)]
    return [Path(folder) for folder in named if folder] + [DOWNLOADS]


def obtain(source: Source, folders: Sequence[Path]) -> list[Found]:
    """Each archive of a data set with its verified file; what is in none of the folders is downloaded to the last one.

    Raises:
        DataError: an archive is not the published one, or cannot be had.
    """
    form = best_form(source, folders)
    failures = {archive.file: fetch(archive, folders[-1], verify) for archive in missing(form, folders)}
    if left := missing(form, folders):
        raise DataError(_how_to_get(left, source, folders, failures))
    found = [(archive, path) for archive in form if (path := locate(archive, folders))]
    for archive, path in found:
        if archive.file not in failures:
            verify(archive, path)
    return found


def best_form(source: Source, folders: Sequence[Path]) -> tuple[Archive, ...]:
    """The archives of the form of which the fewest are missing; of several such the first."""
    return min(source.forms, key=lambda archives: len(missing(archives, folders)))


def missing(archives: Sequence[Archive], folders: Sequence[Path]) -> list[Archive]:
    """Those of the archives that lie in none of the folders."""
    return [archive for archive in archives if locate(archive, folders) is None]


def locate(archive: Archive, folders: Sequence[Path]) -> Path | None:
    """Where an archive lies: in the folders, or in an installed package; None if nowhere."""
    paths = [folder / archive.file for folder in folders] + _in_package(archive.package)
    return next((path for path in paths if (path.is_dir() if archive.folder else path.is_file())), None)


def _in_package(place: str | None) -> list[Path]:
    if place is None:
        return []
    package, _, name = place.partition("/")
    spec = importlib.util.find_spec(package)
    return [Path(spec.origin).parent / name] if spec and spec.origin else []


def verify(archive: Archive, path: Path) -> None:
    """Refuse a file whose size or checksum is not the published one.

    Raises:
        DataError: with both values.
    """
    if archive.folder:
        _verify_folder(archive, path)
        return
    size = path.stat().st_size
    if archive.size_bytes not in (None, size):
        raise DataError(f"{path}: must have {archive.size_bytes:,} bytes, got {size:,}; get the file again")
    checksums: tuple[tuple[Checksum, str | None], ...] = (("sha256", archive.sha256), ("md5", archive.md5))
    for kind, expected in checksums:
        if expected is not None:
            digest = file_digest(path, kind)
            if digest != expected:
                raise DataError(f"{path}: {kind} must be {expected}, got {digest}; get the file again")
            return  # One checksum is enough: the stronger one.


def _verify_folder(archive: Archive, path: Path) -> None:
    digest = folder_sha256(archive, path)
    if digest != archive.sha256:
        raise DataError(
            f"{path}: the sha256 of its list of files must be {archive.sha256}, got {digest}; get the folder again"
        )


def _how_to_get(
    left: Sequence[Archive], source: Source, folders: Sequence[Path], failures: dict[str, list[str]]
) -> str:
    lines = [f"{len(left)} archive(s) are missing. {source.origin}"]
    for archive in left:
        lines += [_line(archive), *(f"    tried {failure}" for failure in failures[archive.file])]
    for form in source.forms:
        if not {archive.file for archive in left} <= {archive.file for archive in form}:
            lines += ["  or instead all of:", *map(_line, form)]
    lines += ["  Put them into one of these folders and run the stage again:"]
    lines += [f"    {folder.resolve()}" for folder in folders]
    if ENVIRONMENT not in os.environ:
        lines += [f"    or the folder that the environment variable {ENVIRONMENT} names"]
    return "\n".join(lines)


def _line(archive: Archive) -> str:
    size = f"{archive.size_bytes:,} bytes" if archive.size_bytes else "size not published"
    checksums = [
        f"{kind} {value}" for kind, value in (("md5", archive.md5), ("sha256", archive.sha256)) if value
    ]
    note = [archive.note] if archive.note else []
    return f"  {archive.file}: " + ", ".join([size, *(checksums or ["no checksum published"]), *note])

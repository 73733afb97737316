"""The archives of a published data set: found locally or downloaded, and verified before anything opens them."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pooch
import requests

from dmlcore.core.errors import FULL, DataError, full_disk
from dmlcore.core.hashing import Checksum, file_digest
from dmlcore.datasets.acquire.folders import folder_sha256
from dmlcore.datasets.acquire.sources import Archive, Source

ENVIRONMENT = "DMLCORE_ARCHIVES"

DOWNLOADS = Path("archives")
"""Where downloads go, relative to data/; git-ignored."""

ROUNDS = 2
"""How often each mirror is tried."""

PAUSE_SECONDS = 5.0
"""Between two rounds."""

TIMEOUT_SECONDS = 30.0
"""Without a byte from the server."""

CHUNK_BYTES = 1 << 20

Found = tuple[Archive, Path]


def search_folders(archives: str | None) -> list[Path]:
    """Return the folders in which archives are looked for, in this order.

    Args:
        archives: the folder that the data set's section of params.yaml names.
    """
    named = [archives, os.environ.get(ENVIRONMENT)]
    return [Path(folder) for folder in named if folder] + [DOWNLOADS]


def obtain(source: Source, folders: Sequence[Path]) -> list[Found]:
    """Return each archive of a data set with its verified file; download absent ones to the last folder.

    Raises:
        DataError: an archive is not the published one, or cannot be had.
    """
    form = best_form(source, folders)
    failures = {archive.file: fetch(archive, folders[-1]) for archive in missing_archives(form, folders)}
    if left := missing_archives(form, folders):
        raise DataError(_how_to_get(left, source, folders, failures))
    found = [(archive, path) for archive in form if (path := locate(archive, folders))]
    for archive, path in found:
        if archive.file not in failures:
            verify(archive, path)
    return found


def best_form(source: Source, folders: Sequence[Path]) -> tuple[Archive, ...]:
    """Return the form of which the fewest archives are missing; of several such the first."""
    return min(source.forms, key=lambda archives: len(missing_archives(archives, folders)))


def missing_archives(archives: Sequence[Archive], folders: Sequence[Path]) -> list[Archive]:
    """Return the archives that are in none of the folders."""
    return [archive for archive in archives if locate(archive, folders) is None]


def locate(archive: Archive, folders: Sequence[Path]) -> Path | None:
    """Return the path of an archive in the folders or in an installed package; None if it is in neither."""
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
        if (digest := folder_sha256(archive, path)) != archive.sha256:
            raise DataError(
                f"{path}: the sha256 of its list of files must be {archive.sha256}, got {digest}; get the folder again"
            )
        return
    size = path.stat().st_size
    if archive.size_bytes not in (None, size):
        raise DataError(f"{path}: must have {archive.size_bytes:,} bytes, got {size:,}; get the file again")
    # The stronger checksum is enough: hashing 40 GB takes minutes.
    kind: Checksum = "sha256" if archive.sha256 else "md5"
    expected = getattr(archive, kind)
    if expected and (digest := file_digest(path, kind)) != expected:
        raise DataError(f"{path}: {kind} must be {expected}, got {digest}; get the file again")


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
    checksums = [f"{kind} {value}" for kind in ("md5", "sha256") if (value := getattr(archive, kind))]
    facts = (size, *(checksums or ["no checksum published"]), archive.note)
    return f"  {archive.file}: " + ", ".join(filter(None, facts))


def fetch(archive: Archive, folder: Path) -> list[str]:
    """Download an archive to `folder` from the first mirror that has it, and verify it.

    The bytes of an interrupted download are kept next to it under a hidden name: the next run resumes from them if the
    server supports ranges (206), and starts again if not.

    Returns:
        One line per failed attempt. The file exists under its name unless every attempt failed.
    """
    failures: list[str] = []
    for number, url in enumerate(archive.urls * ROUNDS):
        if number == len(archive.urls):
            time.sleep(PAUSE_SECONDS)
        partial = folder / f".{archive.file}.partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _download(url, partial)
            try:
                verify(archive, partial)
            except DataError:
                partial.unlink()  # Never resume from bytes that failed verification.
                raise
        except (OSError, requests.RequestException, DataError) as error:
            if isinstance(error, OSError) and error.errno in FULL:  # no other mirror will do better
                raise full_disk(error, folder / archive.file, archive.size_bytes) from None
            failures.append(f"{url}: {error!r}")
        else:
            partial.rename(folder / archive.file)
            return failures
    return failures


def _download(url: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    status = _range_status(url, start) if start else None
    if status == requests.codes.requested_range_not_satisfiable:
        return  # All bytes are here: a run was killed while it verified them.
    resumed = status == requests.codes.partial_content
    with partial.open("ab" if resumed else "wb") as file:
        downloader = pooch.HTTPDownloader(
            progressbar=True,
            chunk_size=CHUNK_BYTES,
            timeout=TIMEOUT_SECONDS,
            headers=_headers(start if resumed else 0),
        )
        downloader(url, file, None)


def _range_status(url: str, start: int) -> int:
    with requests.get(url, headers=_headers(start), stream=True, timeout=TIMEOUT_SECONDS) as answer:
        return answer.status_code


def _headers(start: int) -> dict[str, str]:
    # Without "identity" some servers send a .tar.gz as a compressed transfer, which arrives as a .tar.
    return {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})

"""One archive over HTTP by pooch: mirror by mirror, resumed where the server can, under its name only once verified."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pooch
import requests

from dmlcore.data.errors import DataError
from dmlcore.data.sources import Archive

ROUNDS = 2
"""How often each mirror is tried."""
PAUSE_SECONDS = 5.0
"""Between two rounds."""
TIMEOUT_SECONDS = 30.0
"""Without a byte from the server."""
CHUNK_BYTES = 1 << 20


def fetch(archive: Archive, folder: Path, verify: Callable[[Archive, Path], None]) -> list[str]:
    """Download an archive to `folder`, unless no mirror gives it.

    What an interrupted download got is kept beside it under a hidden name: the next one goes on from there if the
    server answers ranges (206), and starts the file again if not.

    Returns:
        One line for each try that failed; the file is there under its name if the last one did not.
    """
    failures: list[str] = []
    for number, url in enumerate(archive.urls * ROUNDS):
        if number == len(archive.urls):
            time.sleep(PAUSE_SECONDS)
        partial = folder / f".{archive.file}.partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _download(url, partial)
            _verified(archive, partial, verify)
        except (OSError, requests.RequestException, DataError) as error:
            failures.append(f"{url}: {error!r}")
        else:
            partial.rename(folder / archive.file)
            return failures
    return failures


def _verified(archive: Archive, partial: Path, verify: Callable[[Archive, Path], None]) -> None:
    try:
        verify(archive, partial)
    except DataError:
        partial.unlink()  # To go on from wrong bytes would never end well.
        raise


def _download(url: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    status = _range_status(url, start) if start else None
    if status == requests.codes.requested_range_not_satisfiable:
        return  # It is there to the last byte: a run was killed while it verified.
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

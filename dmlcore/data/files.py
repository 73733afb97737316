"""Files written whole or not at all, and their checksums."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

Checksum = Literal["sha256", "md5"]


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends without an error.

    It lies beside `folder` (a rename within one file system is atomic). What a killed run left under the temporary
    name is removed by the next one.
    """
    temporary = _beside(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def resumed_folder(folder: Path, *, refused: type[Exception]) -> Iterator[Path]:
    """As `replaced_folder`, but what a run that was killed or interrupted left there is kept and handed to the next.

    Args:
        folder: where the whole result appears at the end.
        refused: errors after which nothing is kept, since going on would meet them again.
    """
    temporary = _beside(folder)
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
    except refused:
        shutil.rmtree(temporary)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _beside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    return file_digest(path, "sha256")


def file_digest(path: Path, kind: Checksum) -> str:
    """Hexadecimal checksum of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.new, kind, usedforsecurity=False)).hexdigest()

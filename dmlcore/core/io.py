"""Atomic replacement of files and folders: readers see the old content or the new, never a part."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write_path(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends without an error, flushed to disk.

    It lies beside `path` (a rename within one file system is atomic) under the name of this process, so that two
    processes that write the same file do not disturb each other: the later one wins.

    Raises:
        OSError: the disk is full or the folder cannot be written; `path` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `path`, whole or not at all."""
    with atomic_write_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
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
def resumable_folder(folder: Path, *, refused: type[Exception]) -> Iterator[Path]:
    """As `atomic_folder`, but what a run that was killed or interrupted left there is kept and handed to the next.

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

"""Files that others find whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
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
    with replaced_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)

"""Atomic replacement of files and folders: a reader sees the old content or the new, never a part of either."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dmlcore.core.errors import full_disk


@contextmanager
def atomic_write_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path`, flushed to disk, if the block ends without an error.

    It is in the folder of `path`: a rename is atomic within one file system only. It is an empty file of a fresh name
    that nobody can guess: two processes that write the same file do not disturb each other, the later one wins, and a
    link that somebody has left there is not followed.

    Raises:
        OSError: the folder cannot be written; `path` is left as it was. DiskFullError: there is no room.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb") as file:
            # Before the rename: after a crash the new name must not refer to lost bytes.
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise full_disk(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `path` atomically."""
    write_together(path.parent, {path.name: content})


def write_together(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write files to `folder`, all or none: each has its new content only when there was room for all of them.

    Raises:
        OSError: the disk is full or the folder cannot be written; the files are left as they were.
    """
    with ExitStack() as stack:  # which renames at its end, in reverse order
        for name, content in contents.items():
            data = content.encode() if isinstance(content, str) else content
            temporary = stack.enter_context(atomic_write_path(folder / name))
            try:
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())  # now: some disks notice only here that they are full
            except OSError as error:
                raise full_disk(error, folder / name, len(data)) from None


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that replaces `folder` if the block ends without an error."""
    shutil.rmtree(_partial(folder), ignore_errors=True)  # Left by a killed run.
    with resumable_folder(folder, refused=BaseException) as temporary:
        yield temporary


@contextmanager
def resumable_folder(folder: Path, *, refused: type[BaseException]) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` if the block ends without an error.

    What a killed or interrupted run left there is kept for the next run to resume.

    Args:
        folder: where the complete result appears.
        refused: errors after which nothing is kept, because a resumed run would meet them again.
    """
    temporary = _partial(folder)
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
    except refused:
        shutil.rmtree(temporary)
        raise
    # A folder cannot be replaced in one step: a kill between these two leaves none, and the stage runs again.
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")

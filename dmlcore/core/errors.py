"""Errors that more than one package raises, and what no message shows."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

USER = re.compile(r"(?<=://)[^/?#\s'\"]*@")
SECRET = re.compile(r"(?i)([?&][\w.-]*(?:password|passwd|pwd|secret|token|key)[\w.-]*=)[^&\s'\"]+")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DataError(ValueError):
    """Data breaks a rule; the message says what is wrong, the row or file, and the fix."""


class DiskFullError(OSError):
    """There is no room for a file; the message says which, where, and how much is missing."""


def full_disk(error: OSError, path: Path, needed: int | None = None) -> OSError:
    """Return the error to raise in place of `error` of writing to `path`: one that explains a full disk, else itself.

    Args:
        error: of the system.
        path: what could not be written.
        needed: its size in bytes; None: not known.
    """
    if error.errno not in FULL or isinstance(error, DiskFullError):
        return error
    folder = next(parent for parent in (path, *path.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    size = "" if needed is None else f" of {needed:,} bytes"
    reason = (
        "a quota or limit of file sizes is reached" if error.errno != errno.ENOSPC else "the disk is full"
    )
    return DiskFullError(
        f"{path}{size} cannot be written: {reason}, {free:,} bytes are free on the disk of {folder}; make room and "
        "run it again"
    )


def one_line(error: Exception, where: Path) -> str:
    """Describe an error that ends a command, a full disk by its place: `where` is what the command writes to."""
    return str(full_disk(error, where) if isinstance(error, OSError) else error)


def without_passwords(text: str) -> str:
    """Return a text in which no address has a user, a password, or a secret among its arguments."""
    return SECRET.sub(r"\1***", USER.sub("***@", text))

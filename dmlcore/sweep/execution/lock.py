"""The lock of a study's sweep: one process at a time runs it, or delivers its records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_SECONDS = 5.0
"""A killed holder's lock is free within 0.04 s."""


class SweepBusyError(RuntimeError):
    """Another process runs this sweep."""


@contextmanager
def sweep_lock(state: Path) -> Iterator[None]:
    """Hold the sweep of the study whose state folder is `state`.

    Raises:
        SweepBusyError: another process holds it.
    """
    state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state / "sweep.lock", timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise SweepBusyError(
            f"another process runs the sweep of {state.parent}; wait for it or end it"
        ) from None
    try:
        yield
    finally:
        lock.release()

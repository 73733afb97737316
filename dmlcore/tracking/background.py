"""A tracker in a process of its own.

Nothing in the sweep's driver waits for a store that answers slowly or not at all, and the driver takes none of the time
and memory that MLflow needs.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Concatenate, ParamSpec

from filelock import FileLock

from dmlcore.core.errors import without_passwords
from dmlcore.records import TrialRecord
from dmlcore.tracking.base import Tracker

logger = logging.getLogger(__name__)
LOCK = "mlflow.lock"
GRACE_SECONDS = 5.0
"""For the call that is being made when the sweep is interrupted."""
NICENESS = 10
"""Of the tracker's process: trials and their start come first."""

P = ParamSpec("P")
Call = tuple[str, tuple[Any, ...], dict[str, Any]]
"""Name of a tracker's method, its arguments by position and by name."""


def _sent(method: Callable[Concatenate[Any, P], None]) -> Callable[Concatenate[BackgroundTracker, P], None]:
    """Make the method of BackgroundTracker that sends a call of `method` and does not wait for it."""

    @wraps(method)
    def send(self: BackgroundTracker, *arguments: P.args, **named: P.kwargs) -> None:
        self._send((method.__name__, arguments, named))

    return send


class BackgroundTracker(Tracker):
    """Has the calls of another tracker made by a second process, in order; only `sync` waits.

    Used as a context: its end waits until all calls are made. After an error the calls that still wait are dropped, as
    they are when this process or the second one dies: the records have what they would have told.

    Args:
        tracker: makes the calls; it is pickled.
        state: the study's state folder; one process at a time writes to the store from it.
    """

    def __init__(self, tracker: Tracker, state: Path) -> None:
        self.tracker, self.state = tracker, state
        self._broken = False

    def __enter__(self) -> BackgroundTracker:
        self._connection, theirs = Pipe()
        # `-c`, not `-m`: runpy warns of a module that its package has imported.
        code = f"from dmlcore.tracking.background import serve; serve({theirs.fileno()})"
        with theirs:  # only the second process keeps this end: its death ends the connection
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C must not reach it: this process says what becomes of the calls
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._broken = not self._send((self.tracker, self.state / LOCK))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._send(None)
                self._process.wait()
            else:
                self._connection.close()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(GRACE_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._connection.close()

    prepare = _sent(Tracker.prepare)
    start = _sent(Tracker.start)
    epoch = _sent(Tracker.epoch)
    finish = _sent(Tracker.finish)

    def sync(self, records: Iterable[TrialRecord]) -> int:
        """Sync after all calls before it; in this process where the second one has died."""
        records = list(records)
        if self._send(("sync", (records,), {})):
            with suppress(EOFError, OSError):
                return int(self._connection.recv())
        return self.tracker.sync(records)

    def _send(self, message: Any) -> bool:
        """Send a message and tell whether it was sent; what cannot be sent is a warning."""
        if self._broken:
            return False
        try:
            self._connection.send(message)
        except OSError:
            self._broken = True
            logger.warning("the process that writes to MLflow died; the records have what it was to write")
        except Exception as error:
            _warn(error)
        else:
            return True
        return False


def serve(pipe: int) -> None:
    """Make the calls that come through `pipe` until None comes: what the second process runs.

    The first message is the tracker and the path of the lock to hold. Without that lock the last call of a driver that
    was killed could fall among those of its successor.

    Args:
        pipe: file descriptor of this process's end.
    """
    os.nice(NICENESS)
    connection: Connection = Connection(pipe)
    tracker, path = connection.recv()
    waiting: SimpleQueue[Call | None] = SimpleQueue()
    Thread(target=_receive, args=(connection, waiting), daemon=True).start()
    lock = FileLock(path)
    while (call := waiting.get()) is not None:
        # Not before the first call: a driver that finds another sweep at work makes none, and must not wait for it.
        if not lock.is_locked:
            lock.acquire()
        name, arguments, named = call
        try:
            answer = getattr(tracker, name)(*arguments, **named)
        except Exception as error:
            _warn(error)
            answer = 0
        if name == "sync":
            with suppress(OSError):  # the driver has been interrupted
                connection.send(answer)
    sys.stdout.flush()
    sys.stderr.flush()
    # All is written: skip MLflow's shutdown, which takes a second. The lock ends with the process.
    os._exit(0)


def _receive(connection: Connection, waiting: SimpleQueue[Call | None]) -> None:
    """Keep the pipe empty, so that the driver never waits.

    When the driver closes the pipe or dies, what waits is dropped, and the call that is being made is made to its end:
    half a migration would leave a store that no MLflow opens.
    """
    try:
        while True:
            waiting.put(connection.recv())
    except (EOFError, OSError):
        pass
    except Exception as error:
        _warn(error)
    with suppress(Empty):
        while True:
            waiting.get_nowait()
    waiting.put(None)


def _warn(error: Exception) -> None:
    logger.warning(
        "tracker: %s: %s; the records have it", type(error).__name__, without_passwords(f"{error}")
    )

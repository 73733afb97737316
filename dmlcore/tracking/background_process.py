"""The other end of `BackgroundTracker`: makes the calls that it is sent until it is told that those were all.

Started as a script with the number of its end of the pipe.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from filelock import FileLock

logger = logging.getLogger(__name__)


LAST = 10
"""Niceness: trials and their start go first."""


Call = tuple[str, tuple[Any, ...]]
"""The name of a tracker's method and its arguments."""


def serve(pipe: int) -> None:
    """Make the calls that come through `pipe`; the first message is the tracker and the lock to hold.

    Without that lock the last call of a driver that was killed could fall among those of its successor.
    """
    os.nice(LAST)
    connection: Connection = Connection(pipe)
    tracker, lock = connection.recv()
    waiting: SimpleQueue[Call | None] = SimpleQueue()
    Thread(target=_listen, args=(connection, waiting), daemon=True).start()
    alone = FileLock(lock)
    while (call := waiting.get()) is not None:
        if (
            not alone.is_locked
        ):  # not before the first call: a driver that finds another one at work makes none
            alone.acquire()
        name, arguments = call
        answer = _made(tracker, name, arguments)
        if name == "sync":
            with suppress(OSError):  # the driver has been interrupted
                connection.send(answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is written, MLflow need not be taken apart; the lock ends with the process


def _listen(connection: Connection, waiting: SimpleQueue[Call | None]) -> None:
    """Keep the pipe empty, so that the driver never waits. When the driver closes it or dies, only the call that is
    being made is made to its end: half a migration would leave a store that no MLflow opens.
    """
    try:
        while True:
            waiting.put(connection.recv())
    except (EOFError, OSError):
        pass
    except Exception as error:
        logger.warning("tracker: %s: %s; the records have it", type(error).__name__, error)
    with suppress(Empty):
        while True:
            waiting.get_nowait()
    waiting.put(None)


def _made(tracker: Any, name: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return getattr(tracker, name)(*arguments)
    except Exception as error:
        logger.warning("tracker: %s: %s; the records have it", type(error).__name__, error)
        return 0


if __name__ == "__main__":
    serve(int(sys.argv[1]))

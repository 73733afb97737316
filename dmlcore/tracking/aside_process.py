"""The other end of `TrackerProcess`: makes the calls that it is sent until it is told that those were all.

Started as a script with the number of its end of the pipe.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

logger = logging.getLogger(__name__)
LAST = 10
"""Niceness: trials and their start go first."""
Call = tuple[str, tuple[Any, ...]]
"""The name of a tracker's method and its arguments."""


def serve(pipe: int) -> None:
    """Make the calls that come through `pipe`, the first message of which is the tracker."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the driver, which says what becomes of the calls
    connection: Connection = Connection(pipe)
    tracker = connection.recv()
    waiting: SimpleQueue[Call | None] = SimpleQueue()
    Thread(target=_listen, args=(connection, waiting), daemon=True).start()
    while (call := waiting.get()) is not None:
        name, arguments = call
        answer = _made(tracker, name, arguments)
        if name == "sync":
            connection.send(answer)
    sys.stderr.flush()
    os._exit(0)  # all is written; taking MLflow apart takes seconds


def _listen(connection: Connection, waiting: SimpleQueue[Call | None]) -> None:
    """Keep the pipe empty, so that the driver never waits; end this process when the driver dies."""
    try:
        while (call := connection.recv()) is not None:
            waiting.put(call)
    except (EOFError, OSError):
        os._exit(1)  # at once, in the middle of a call too: the next driver may have begun
    waiting.put(None)


def _made(tracker: Any, name: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return getattr(tracker, name)(*arguments)
    except Exception as error:
        logger.warning("tracker: %s: %s; the records have it", type(error).__name__, error)
        return 0


if __name__ == "__main__":
    serve(int(sys.argv[1]))

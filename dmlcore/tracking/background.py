"""A tracker in a process of its own: nothing waits for a store that answers slowly or not at all, and what MLflow takes
of time and memory it does not take of the sweep's driver.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from types import TracebackType
from typing import Any

from dmlcore.records import TrialRecord
from dmlcore.tracking.mlflow import MlflowTracker

logger = logging.getLogger(__name__)
LOCK = "mlflow.lock"


PATIENCE = 5.0
"""Seconds for the call that is being made when the sweep is interrupted."""


class BackgroundTracker:
    """Has the calls of a tracker made by another process, one after the other; only `sync` waits.

    Used as a context: its end waits until all calls are made. After an error those that still wait are dropped, and
    so they are when this process dies or the other one does: the records have what they would have told.

    Args:
        tracker: makes them.
        state: the study's state folder; one process at a time writes to MLflow from it.
    """

    def __init__(self, tracker: MlflowTracker, state: Path) -> None:
        self.tracker, self.state = tracker, state
        self._gone = False

    def __enter__(self) -> BackgroundTracker:
        self._calls, theirs = Pipe()
        with theirs:  # the other process alone keeps its end: its death ends the connection
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dmlcore.tracking.background_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C reaches this process, which says what becomes of the calls
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._gone = not self._send((self.tracker, self.state / LOCK))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._send(None)
                self._process.wait()
            else:
                self._calls.close()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._calls.close()

    def prepare(self) -> None:
        self._send(("prepare", ()))

    def start(self, trial_key: str, name: str, labels: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._send(("start", (trial_key, name, labels, config)))

    def epoch(self, trial_key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        self._send(("epoch", (trial_key, epoch, metrics)))

    def finish(self, record: TrialRecord, name: str) -> None:
        self._send(("finish", (record, name)))

    def sync(self, records: Iterable[TrialRecord]) -> int:
        """After all calls before it; made here where the other process has died."""
        records = list(records)
        if self._send(("sync", (records,))):
            with suppress(EOFError, OSError):
                return int(self._calls.recv())
        return self.tracker.sync(records)

    def _send(self, message: Any) -> bool:
        """Whether it was sent; if not, that is a warning and no more."""
        if self._gone:
            return False
        try:
            self._calls.send(message)
        except OSError:
            self._gone = True
            logger.warning("the process that writes to MLflow died; the records have what it was to write")
        except Exception as error:
            logger.warning("tracker: %s: %s; the records have it", type(error).__name__, error)
        else:
            return True
        return False

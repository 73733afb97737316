"""A tracker in a process of its own: nothing waits for a store that answers slowly or not at all, and what MLflow takes
of time and memory it does not take of the sweep's driver.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from multiprocessing import Pipe
from types import TracebackType
from typing import Any

from dmlcore.records import TrialRecord
from dmlcore.tracking.mlflow import MlflowTracker

logger = logging.getLogger(__name__)


class TrackerProcess:
    """Has the calls of a tracker made by another process, one after the other; only `sync` waits.

    Used as a context: its end waits until all calls are made. After an error those that still wait are dropped, and
    so they are when this process dies or the other one does: the records have what they would have told.
    """

    def __init__(self, tracker: MlflowTracker) -> None:
        self.tracker = tracker
        self._calls, self._theirs = Pipe()
        self._process: subprocess.Popen[bytes] | None = None
        self._gone = False

    def __enter__(self) -> TrackerProcess:
        end = self._theirs.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dmlcore.tracking.aside_process", str(end)],
            pass_fds=[end],
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._theirs.close()  # the other process alone holds it: its death ends the connection
        self._send(self.tracker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self._process is not None
        try:
            if error is None:
                self._send(None)
                self._process.wait()
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
        try:
            self._send(("sync", (records,)))
            return int(self._calls.recv())
        except (EOFError, OSError):
            return self.tracker.sync(records)

    def _send(self, message: Any) -> None:
        if self._gone:
            return
        try:
            self._calls.send(message)
        except OSError:
            self._gone = True
            logger.warning("the process that writes to MLflow died; the records have what it was to write")

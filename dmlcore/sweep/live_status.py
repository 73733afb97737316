"""The status of a sweep as its driver hears of its trials; `dmlcore status` shows it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

from dmlcore.records import TrialRecord
from dmlcore.sweep.control import Control, FailedTrial, LiveTrial, QueuedTrial, new_status

WRITE_SECONDS = 1.0
"""The status is written at most this often."""
SHOWN = 20
"""Trials of the queue, and last failures, that the status names."""


class LiveStatus:
    """Keeps the status of a sweep as its driver hears of its trials.

    Args:
        control: where it is written.
        total: trials to run.
        queue: (key, name) of the trials in their order; empty for a search.
    """

    def __init__(self, control: Control, total: int, queue: Iterable[tuple[str, str]]) -> None:
        self.control, self.status = control, new_status()
        self._go_on()
        self.status.total += total
        self.queue = dict(queue)
        self.running: dict[str, LiveTrial] = {}
        self._changed, self._written = True, 0.0
        control.write_queue(self.queue.items())

    def _go_on(self) -> None:
        """Count what an earlier part of this run of the stage has ended: trials may wait for the scores of others."""
        with suppress(ValueError, OSError):
            before = self.control.read()
            if before is not None and (before.pid, before.host) == (self.status.pid, self.status.host):
                ended = {name: getattr(before, name) for name in ("finished", "failed", "stopped")}
                update = {
                    "total": sum(ended.values()),
                    "started": before.started,
                    "failures": before.failures,
                }
                self.status = self.status.model_copy(update=ended | update)

    def start(self, key: str, name: str, epochs: int) -> None:
        self.queue.pop(key, None)
        self.running[key] = LiveTrial(key=key, name=name[:1000], epochs=epochs, started=time.time())
        self._changed = True

    def hold(self, key: str, name: str) -> None:
        """Put a trial back that did not begin."""
        self.running.pop(key, None)
        self.queue[key] = name
        self._changed = True

    def epoch(self, key: str, epoch: int, node: str | None) -> None:
        """Take in a report of a running trial."""
        trial, now = self.running.get(key), time.time()
        if trial is None:
            return
        if trial.first_epoch is None or epoch < trial.first_epoch:  # another attempt may begin before
            trial.first_epoch, trial.first_report = epoch, now
        trial.epoch, trial.last_report, trial.node = epoch, now, node
        self._changed = True

    def end(self, key: str, name: str, record: TrialRecord | None, died: str = "") -> None:
        """Take in how a trial ended: with `record`, or with None if its process died, for which reason."""
        self.queue.pop(key, None)
        self.running.pop(key, None)
        status = "failed" if record is None else record.status
        setattr(self.status, status, getattr(self.status, status) + 1)
        if status == "failed":
            reason = (record.error if record else None) or died or "its process died"
            failure = FailedTrial(key=key, name=name[:1000], reason=reason.strip().split("\n")[0][:1000])
            self.status.failures = [*self.status.failures, failure][-SHOWN:]
        self._changed = True

    def halt(self, reason: str) -> None:
        """Show that no further trial starts."""
        self.status.halted = reason[:1000]
        self._changed = True

    def write(self) -> None:
        """Write the status if it changed and was not written just now."""
        if not self._changed or time.monotonic() - self._written < WRITE_SECONDS:
            return
        status, ended = self.status, self.status.finished + self.status.failed + self.status.stopped
        status.running = list(self.running.values())
        status.queued = max(0, status.total - ended - len(self.running))
        status.next = [
            QueuedTrial(key=key, name=name[:1000])
            for key, name in list(self.queue.items())[:SHOWN]  # dictionaries keep their order
        ]
        self.control.write(status)
        self._changed, self._written = False, time.monotonic()

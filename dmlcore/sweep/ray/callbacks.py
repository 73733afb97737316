"""The driver's callback: passes what Ray Tune reports to the display, the tracker and early stopping.

And obeys what other processes ask of the sweep.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Callback

from dmlcore.config.base import canonical
from dmlcore.records import CURVE, RecordFolder, TrialRecord
from dmlcore.sweep.execution.guards import Budget
from dmlcore.sweep.execution.worker import attempts_at, make_record
from dmlcore.sweep.file_store import SharedStorageError
from dmlcore.sweep.live_status import LiveStatus
from dmlcore.sweep.plan import CANCELLED, PlannedTrial
from dmlcore.sweep.progress import Progress
from dmlcore.sweep.ray.remote_worker import download_log, download_results, sync_with_nodes, weights_file
from dmlcore.sweep.ray.signals import SweepSession
from dmlcore.tracking.base import Tracker

if TYPE_CHECKING:
    from dmlcore.sweep.search.early_stopping import EarlyStopping


HELD = "held"
"""Last report of a trial that did not begin, since the sweep was halted; it leaves no record."""
POLL_SECONDS = 0.5
NODE_LOST = ("node has died", "is unavailable")
"""Ray's words where the machine of a process is gone; it is `unavailable` in the seconds before Ray is certain.
Of one that died alone Ray knows at once."""
FORGIVEN = 10
"""Lost nodes of a trial that count as no attempt."""


class SweepCallback(Callback):
    """Follows the trials of a sweep as Tune starts, hears and ends them.

    Args:
        trials: those to run; those of a search are added by `prepare`.
        session: of the sweep.
        progress: the display.
        live: what `dmlcore status` shows.
        tracker: shows trials elsewhere.
        scheduler: decides on early stopping; None: every trial runs to its last epoch.
        budget: hours of trials after which none starts; None: no limit.
    """

    def __init__(
        self,
        trials: list[PlannedTrial],
        session: SweepSession,
        progress: Progress,
        live: LiveStatus,
        tracker: Tracker,
        scheduler: EarlyStopping | None,
        budget: Budget | None,
    ) -> None:
        self.trials = {trial.key: trial for trial in trials}
        self.session, self.progress, self.live = session, progress, live
        self.tracker, self.scheduler, self.budget = tracker, scheduler, budget
        self.records = RecordFolder(session.context.records)
        self.died: dict[str, str] = {}
        """Trial key -> Ray's reason, of trials whose process died at every attempt."""
        self.halted: str | None = None
        """Why no further trial starts."""
        self._cancelled: set[str] = set()
        """Keys of trials that were cancelled before they began: they have their record."""
        self._lost_nodes: dict[str, int] = {}
        """Trial key -> how many nodes were lost under it."""
        self._polled = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune saves its callbacks for Tuner.restore, which is never used (records are the truth)."""
        return {}

    def prepare(self, trial: PlannedTrial) -> PlannedTrial | None:
        """Return a trial of a search as its worker needs it; None if a node has left its record."""
        ready = replace(trial, weights=weights_file(trial))
        storage = self.session.connection.storage
        if storage is not None and not sync_with_nodes([ready], storage, self.records):
            return None
        self.trials[trial.key] = ready
        return ready

    def fetch_record(self, trial: PlannedTrial) -> TrialRecord | None:
        """Return the record that a trial left, downloaded first if its node does not share the driver's disk."""
        storage = self.session.connection.storage
        if storage is not None:
            download_results(trial, storage, self.records)
        return self.records.read_or_set_aside(trial.key)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        # Tune takes a step every tenth of a second at least, whether trials report or not.
        if time.monotonic() - self._polled >= POLL_SECONDS:
            self._obey()
            self._polled = time.monotonic()
        self.live.write()

    def _obey(self) -> None:
        """Do what other processes asked and the budget demands; where shared storage fails, at the next look."""
        control = self.live.control
        with suppress(OSError, SharedStorageError):
            by = control.drain_requested()
            if by is not None and self.halted is None:
                self.halt(f"drained by {by}")
            if self.budget is not None and self.halted is None:
                running = self.live.running.values()
                if self.budget.is_spent(sum(time.time() - trial.started for trial in running)):
                    self.halt(self.budget.reason)
            for key, by in control.cancel_requests().items():
                self._cancel(key, f"cancelled by {by}")
                control.cancel_done(key)

    def halt(self, reason: str) -> None:
        """Start no further trial; those that run go on to their end."""
        # First the signal: a worker must not begin what the driver holds for held.
        self.session.stop_signals.halt(reason)
        self.halted = reason
        self.live.halt(reason)
        self.progress.console.print(f"sweep: {reason}; no further trial starts", markup=False, soft_wrap=True)

    def _cancel(self, key: str, reason: str) -> None:
        """End a running trial at its next report; give one that waits its record now."""
        planned = self.trials.get(key)
        if planned is None or key in self._cancelled:
            return
        if key in self.live.running:
            self.session.stop_signals.cancel(key, reason)
        elif key in self.live.queue:
            self.session.stop_signals.cancel(key, reason)
            record = make_record(
                planned,
                status="stopped",
                error=f"{reason}, before it began",
                error_type=CANCELLED,
                attempts=attempts_at(planned.store_folder),
            )
            self.records.write(record)
            self._cancelled.add(key)
            self.tracker.finish(record, planned.name)
            self._end(planned, record)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self.trials[trial.config["trial_key"]]
        if self.halted is not None or planned.key in self._cancelled:
            return  # it will not begin
        self.progress.start(planned.key, planned.name, planned.cell.config.train.epochs)
        self.live.start(planned.key, planned.name, planned.cell.config.train.epochs)
        self.tracker.start(planned.key, planned.name, planned.cell.labels, canonical(planned.cell.config))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "epoch" not in result:  # the last report of a trial, after its record
            return
        planned = self.trials[trial.config["trial_key"]]
        epoch, metrics = result["epoch"], dict(result["metrics"])
        score = metrics.get(CURVE)
        self.tracker.epoch(planned.key, epoch, metrics)
        self.progress.epoch(planned.key, epoch, score)
        self.live.epoch(planned.key, epoch, result.get("hostname"))
        reason = self.scheduler.should_stop(planned, epoch, score) if self.scheduler else None
        if reason:
            self.session.stop_signals.request(planned, reason)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self.trials[trial.config["trial_key"]]
        if (trial.last_result or {}).get("status") == HELD:
            self.progress.hold(planned.key)
            self.live.hold(planned.key, planned.name)
            return
        record = self.fetch_record(planned)
        if planned.key in self._cancelled:
            return
        if record is not None:
            self.tracker.finish(record, planned.name)
        self._end(planned, record)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count no attempt of a trial whose node was lost: the trial did nothing to it. Not without an end."""
        lost = self._lost_nodes.get(trial.config["trial_key"], 0)
        if lost < FORGIVEN and any(words in _last_failure(trial) for words in NODE_LOST):
            self._lost_nodes[trial.config["trial_key"]] = lost + 1
            trial.run_metadata.num_failures -= 1

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self.trials[trial.config["trial_key"]]
        # Not `trial.get_error`: it reads the copy that Tune makes of this file meanwhile. The last line says most.
        lines = _last_failure(trial).strip().splitlines()[1:] or ["Ray kept no reason"]
        self.died[planned.key] = f"process died: {lines[-1].strip()}"
        self._end(planned, None)

    def _end(self, planned: PlannedTrial, record: TrialRecord | None) -> None:
        storage = self.session.connection.storage
        if storage is not None:
            done = record is not None and record.done
            download_log(planned, storage, self.session.context.state, done)
        if self.budget is not None:
            begun = self.live.running.get(planned.key)
            died = time.time() - begun.started if begun else 0.0
            self.budget.spent_seconds += died if record is None else record.seconds
        self.progress.end(planned.key, planned.name, record)
        self.live.end(planned.key, planned.name, record, self.died.get(planned.key, ""))


def _last_failure(trial: Any) -> str:
    """Return the reason of a trial's last failure from the file to which Tune appends them all."""
    try:
        return Path(trial.error_file).read_text(errors="replace").rpartition("Failure # ")[2]
    except (OSError, TypeError):
        return ""

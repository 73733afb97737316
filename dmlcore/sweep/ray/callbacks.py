"""The driver's callback: passes what Ray Tune reports to the display, the tracker and early stopping.

And the signals by which the driver stops a trial early, and what driver and workers share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dmlcore.sweep.ray.cluster import Connection

# isort: split
from ray.tune import Callback

from dmlcore.config.base import canonical
from dmlcore.records import CURVE, RecordFolder, TrialRecord
from dmlcore.sweep.control import LiveStatus
from dmlcore.sweep.execution.worker import StoppedEarlyError, WorkerContext
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.progress import Progress
from dmlcore.sweep.ray.remote_worker import download_log, download_results, sync_with_nodes, weights_file
from dmlcore.sweep.ray.shared_storage import SharedStorage
from dmlcore.tracking.base import Tracker

if TYPE_CHECKING:
    from dmlcore.sweep.search.early_stopping import EarlyStopping


@dataclass(frozen=True)
class StopSignals:
    """A file for each trial that must stop, holding the reason.

    Tune returns from `tune.report` only after the driver's callback has handled the epoch, so a signal for an epoch is
    there when its worker checks.
    """

    storage: SharedStorage

    def request(self, trial: PlannedTrial, reason: str) -> None:
        """Tell the worker of a trial to end it."""
        self.storage.write(f"stop/{trial.key}", reason.encode())

    def check(self, trial: PlannedTrial) -> None:
        """End the trial if the driver requested it; called in the worker, after each report.

        Raises:
            StoppedEarlyError: the trial must end.
        """
        if trial.cell.comparison_group is None:
            return
        reason = self.storage.read(f"stop/{trial.key}")
        if reason is not None:
            self.reset(trial)
            raise StoppedEarlyError(reason.decode(errors="replace")[:200])

    def reset(self, trial: PlannedTrial) -> None:
        """Drop a signal to an earlier attempt; called in the worker, before an attempt.

        The attempt may resume from an earlier epoch; the signal is given again at the epoch to which it belongs.
        """
        if trial.cell.comparison_group is not None:
            self.storage.remove(f"stop/{trial.key}")


@dataclass(frozen=True)
class SweepSession:
    """What the driver and all workers of a sweep have in common."""

    context: WorkerContext
    connection: Connection

    @property
    def stop_signals(self) -> StopSignals:
        return StopSignals(self.connection.storage or SharedStorage(f"file://{self.context.state}"))


class SweepCallback(Callback):
    """Follows the trials of a sweep as Tune starts, hears and ends them.

    Args:
        trials: those to run; those of a search are added by `prepare`.
        session: of the sweep.
        progress: the display.
        live: what `dmlcore status` shows.
        tracker: shows trials elsewhere.
        scheduler: decides on early stopping; None: every trial runs to its last epoch.
    """

    def __init__(
        self,
        trials: list[PlannedTrial],
        session: SweepSession,
        progress: Progress,
        live: LiveStatus,
        tracker: Tracker,
        scheduler: EarlyStopping | None,
    ) -> None:
        self.trials = {trial.key: trial for trial in trials}
        self.session, self.progress, self.live = session, progress, live
        self.tracker, self.scheduler = tracker, scheduler
        self.records = RecordFolder(session.context.records)
        self.died: dict[str, str] = {}
        """Trial key -> Ray's reason, of trials whose process died at every attempt."""

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
        self.live.write()  # Tune takes a step every tenth of a second at least, whether trials report or not

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self.trials[trial.config["trial_key"]]
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
        record = self.fetch_record(planned)
        if record is not None:
            self.tracker.finish(record, planned.name)
        self._end(planned, record)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self.trials[trial.config["trial_key"]]
        error = trial.get_error()
        lines = str(error or "").strip().splitlines() or ["Ray kept no reason"]
        self.died[planned.key] = f"process died: {type(error).__name__}: {lines[-1]}"
        self._end(planned, None)

    def _end(self, planned: PlannedTrial, record: TrialRecord | None) -> None:
        storage = self.session.connection.storage
        if storage is not None:
            done = record is not None and record.done
            download_log(planned, storage, self.session.context.state, done)
        self.progress.end(planned.key, planned.name, record)
        self.live.end(planned.key, planned.name, record, self.died.get(planned.key, ""))

"""What the driver does as trials start, report and end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dmlcore.sweep.ray.cluster import Connection

# isort: split
from ray.tune import Callback

from dmlcore.config.base import canonical
from dmlcore.records import CURVE, RecordFolder, TrialRecord
from dmlcore.sweep.execution.worker import WorkerContext
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.progress import Progress
from dmlcore.sweep.ray.remote_worker import download_results, offer, weights_file
from dmlcore.sweep.ray.stop_signals import StopSignals
from dmlcore.tracking.base import Tracker

if TYPE_CHECKING:
    from dmlcore.sweep.search.asha import ASHAPruner


def left_by_nodes(
    trials: list[PlannedTrial], connection: Connection, records: RecordFolder
) -> list[PlannedTrial]:
    """Take over what ended while no driver was there, put into the exchange what the other trials need; gives these."""
    if connection.exchange is None:
        return trials
    left = []
    for trial in trials:
        record = download_results(trial, connection.exchange, records)
        if record is None or not trial.is_complete(record):
            left.append(trial)
    offer(left, connection.exchange)
    return left


class Watcher(Callback):
    """Passes what Tune sees on to the progress display, to the tracker and to early stopping."""

    def __init__(
        self,
        trials: list[PlannedTrial],
        place: WorkerContext,
        connection: Connection,
        progress: Progress,
        tracker: Tracker,
        halving: ASHAPruner | None,
    ) -> None:
        self.trials = {trial.key: trial for trial in trials}
        self.place, self.connection = place, connection
        self.progress, self.tracker, self.halving = progress, tracker, halving
        self.verdicts = StopSignals(place.locks, connection.exchange)
        self.died: dict[str, str] = {}

    def admit(self, trial: PlannedTrial) -> PlannedTrial | None:
        """A trial of a search as its worker needs it; None: a node left its record, there is nothing to run."""
        ready = replace(trial, weights=weights_file(trial))
        if not left_by_nodes([ready], self.connection, RecordFolder(self.place.records)):
            return None
        self.trials[trial.key] = ready
        return ready

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that this project never does (the records are the truth)."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self.trials[trial.config["trial_key"]]
        self.progress.start(planned.key, planned.name, planned.cell.config.train.epochs)
        self.tracker.start(planned.key, planned.name, planned.cell.labels, canonical(planned.cell.config))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "epoch" not in result:
            return
        planned = self.trials[trial.config["trial_key"]]
        epoch, metrics = result["epoch"], dict(result["metrics"])
        score = metrics.get(CURVE)
        self.tracker.epoch(planned.key, epoch, metrics)
        self.progress.epoch(planned.key, epoch, score)
        reason = self.halving.judge(planned, epoch, score) if self.halving else None
        if reason:
            self.verdicts.leave(planned, reason)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self.trials[trial.config["trial_key"]]
        record = self.record(planned)
        if record is not None:
            self.tracker.finish(record, planned.name)
        self.progress.end(planned.key, planned.name, record)

    def record(self, trial: PlannedTrial) -> TrialRecord | None:
        """The record that a trial left, fetched from its node where that is elsewhere."""
        records = RecordFolder(self.place.records)
        if self.connection.exchange is not None:
            download_results(trial, self.connection.exchange, records)
        return records.read_or_set_aside(trial.key)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self.trials[trial.config["trial_key"]]
        error = trial.get_error()
        lines = str(error or "").strip().splitlines() or ["Ray kept no reason"]
        self.died[planned.key] = f"process died: {type(error).__name__}: {lines[-1]}"
        self.progress.end(planned.key, planned.name, None)

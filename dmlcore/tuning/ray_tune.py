"""Ray Tune: schedules the missing trials over the CPUs and GPUs of a machine or cluster. Its own state is throwaway."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

from dmlcore.tuning.cluster import Connection, connected

# isort: split
from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig, Tuner

from dmlcore.config import ClusterConfig, ResourcesConfig
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.training.run import EpochReport
from dmlcore.tuning.away import execute_away, offer, take_over, weights_file
from dmlcore.tuning.plan import PlannedTrial
from dmlcore.tuning.progress import Progress
from dmlcore.tuning.worker import NoTracker, Workplace, execute


def run_trials(
    trials: list[PlannedTrial],
    place: Workplace,
    *,
    resources: ResourcesConfig,
    cluster: ClusterConfig,
    attempts: int,
    state: Path,
) -> dict[str, str]:
    """Run `trials`; each leaves its record.

    Args:
        trials: what to run; an empty list runs nothing.
        place: handed to the workers.
        resources: of each trial.
        cluster: where they run.
        attempts: how often a trial whose process dies is tried.
        state: the study's folder for what passes; Tune's own files lie there while it runs.

    Returns:
        Trial key -> what Ray says of a trial whose process died every time.

    Raises:
        ClusterError: the cluster cannot run them.
    """
    trials = [replace(trial, weights=weights_file(trial)) for trial in trials]
    with connected(cluster, state, _needs(trials)) as connection:
        left = _left_by_nodes(trials, connection, RecordFolder(place.records))
        concurrent = resources.max_concurrent or connection.concurrent
        with Progress(len(left), concurrent) as progress:
            watcher = _Watcher(left, place, connection, progress)
            if left:
                _tune(left, watcher, resources, attempts, state / "tune")
    return watcher.died


def _needs(trials: list[PlannedTrial]) -> list[Path]:
    """What the trials read by path."""
    weights = {trial.weights for trial in trials if trial.weights is not None}
    return sorted({trial.data_folder for trial in trials} | weights)


def _left_by_nodes(
    trials: list[PlannedTrial], connection: Connection, records: RecordFolder
) -> list[PlannedTrial]:
    """Take over what ended while no driver was there, put into the exchange what the other trials need; gives these."""
    if connection.exchange is None:
        return trials
    left = []
    for trial in trials:
        record = take_over(trial, connection.exchange, records)
        if record is None or not record.done:
            left.append(trial)
    offer(left, connection.exchange)
    return left


def _tune(
    trials: list[PlannedTrial], watcher: _Watcher, resources: ResourcesConfig, attempts: int, scratch: Path
) -> None:
    tuner = Tuner(
        tune.with_resources(
            tune.with_parameters(
                _trainable,
                trials=watcher.trials,
                place=watcher.workers_place(),
                connection=watcher.connection,
            ),
            _bundle(trials, resources),
        ),
        param_space={"trial_key": tune.grid_search([trial.key for trial in trials])},
        tune_config=TuneConfig(
            max_concurrent_trials=resources.max_concurrent, reuse_actors=resources.reuse_workers
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=attempts - 1),
            callbacks=[watcher],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except Exception as error:
        if not watcher.progress.all_ended:
            raise
        # Tune reads its own files back in the end, which a full disk has cut short; the records are the truth.
        print(f"sweep: all trials have ended, Ray Tune's own end failed: {type(error).__name__}: {error}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _trainable(
    config: dict[str, Any], trials: dict[str, PlannedTrial], place: Workplace, connection: Connection
) -> None:
    trial = trials[config["trial_key"]]

    def report(epoch: EpochReport) -> None:
        tune.report(
            {"epoch": epoch.epoch, "map_at_r": epoch.metrics.get("validation/map_at_r"), "status": "running"}
        )

    if connection.meeting is not None:
        connection.meeting.check()
    if connection.exchange is None:
        record = execute(trial, place, report)
    else:
        record = execute_away(trial, place, report, connection.exchange)
    tune.report({"status": record.status})


def _bundle(trials: list[PlannedTrial], resources: ResourcesConfig) -> dict[str, float]:
    bundle: dict[str, float] = {
        "cpu": max(trial.cell.config.threads for trial in trials),
        "gpu": resources.gpus,
    }
    if resources.memory_bytes is not None:
        bundle["memory"] = resources.memory_bytes
    return bundle


class _Watcher(Callback):
    """Passes what Tune sees on to the progress display."""

    def __init__(
        self, trials: list[PlannedTrial], place: Workplace, connection: Connection, progress: Progress
    ) -> None:
        self.trials = {trial.key: trial for trial in trials}
        self.place, self.connection, self.progress = place, connection, progress
        self.died: dict[str, str] = {}

    def workers_place(self) -> Workplace:
        """As `place`; workers on other machines do not reach a tracker of this one."""
        return replace(self.place, tracker=NoTracker()) if self._logs_here else self.place

    @property
    def _logs_here(self) -> bool:
        return self.connection.elsewhere and self.place.tracker.local

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that this project never does (the records are the truth)."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self.trials[trial.config["trial_key"]]
        self.progress.start(planned.key, planned.name, planned.cell.config.train.epochs)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "epoch" in result:
            self.progress.epoch(trial.config["trial_key"], result["epoch"], result.get("map_at_r"))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self.trials[trial.config["trial_key"]]
        record = self._record(planned)
        if record is not None and self._logs_here:
            self.place.tracker.finish(record, planned.name)
        self.progress.end(planned.key, planned.name, record)

    def _record(self, trial: PlannedTrial) -> TrialRecord | None:
        records = RecordFolder(self.place.records)
        if self.connection.exchange is not None:
            take_over(trial, self.connection.exchange, records)
        return records.read_or_set_aside(trial.key)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self.trials[trial.config["trial_key"]]
        error = trial.get_error()
        lines = str(error or "").strip().splitlines() or ["Ray kept no reason"]
        self.died[planned.key] = f"process died: {type(error).__name__}: {lines[-1]}"
        self.progress.end(planned.key, planned.name, None)

"""Ray Tune: schedules the missing trials over the CPUs and GPUs of a machine or cluster. Its own state is throwaway."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# Ray's own kill for want of memory ends the whole sweep; without it the kernel ends one worker, which is tried again.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")

import ray
from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig, Tuner

from dmlcore.config import ResourcesConfig
from dmlcore.records import RecordFolder
from dmlcore.training.run import EpochReport
from dmlcore.tuning.plan import PlannedTrial
from dmlcore.tuning.progress import Progress
from dmlcore.tuning.worker import Workplace, execute


def run_trials(
    trials: list[PlannedTrial], place: Workplace, *, resources: ResourcesConfig, attempts: int, scratch: Path
) -> dict[str, str]:
    """Run `trials`; each leaves its record.

    Args:
        trials: what to run; an empty list runs nothing.
        place: handed to the workers.
        resources: of each trial.
        attempts: how often a trial whose process dies is tried.
        scratch: folder for Tune's own files, removed at the end.

    Returns:
        Trial key -> what Ray says of a trial whose process died every time.
    """
    with _ray(resources) as concurrent, Progress(len(trials), concurrent) as progress:
        watcher = _Watcher({trial.key: trial for trial in trials}, RecordFolder(place.records), progress)
        tuner = Tuner(
            tune.with_resources(
                tune.with_parameters(_trainable, trials=watcher.trials, place=place),
                _bundle(trials, resources),
            ),
            param_space={"trial_key": tune.grid_search([trial.key for trial in trials])},
            tune_config=TuneConfig(max_concurrent_trials=resources.max_concurrent, reuse_actors=True),
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
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return watcher.died


def _trainable(config: dict[str, Any], trials: dict[str, PlannedTrial], place: Workplace) -> None:
    key = config["trial_key"]

    def report(epoch: EpochReport) -> None:
        tune.report(
            {"epoch": epoch.epoch, "map_at_r": epoch.metrics.get("validation/map_at_r"), "status": "running"}
        )

    record = execute(trials[key], place, report)
    tune.report({"status": record.status})


def _bundle(trials: list[PlannedTrial], resources: ResourcesConfig) -> dict[str, float]:
    bundle: dict[str, float] = {
        "cpu": max(trial.cell.config.threads for trial in trials),
        "gpu": resources.gpus,
    }
    if resources.memory_bytes is not None:
        bundle["memory"] = resources.memory_bytes
    return bundle


@contextmanager
def _ray(resources: ResourcesConfig) -> Iterator[int]:
    """Connect to the cluster that RAY_ADDRESS names, else start Ray here; gives how many trials run at a time."""
    cluster = "RAY_ADDRESS" in os.environ
    ray.init(include_dashboard=None if cluster else False, logging_level=logging.ERROR, log_to_driver=False)
    previous = signal.signal(signal.SIGTERM, _interrupt)  # after ray.init, which sets a handler of its own
    try:
        yield resources.max_concurrent or int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


class _Watcher(Callback):
    """Passes what Tune sees on to the progress display."""

    def __init__(self, trials: dict[str, PlannedTrial], records: RecordFolder, progress: Progress) -> None:
        self.trials, self.records, self.progress = trials, records, progress
        self.died: dict[str, str] = {}

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
        self.progress.end(planned.key, planned.name, self.records.read_or_set_aside(planned.key))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self.trials[trial.config["trial_key"]]
        error = trial.get_error()
        self.died[planned.key] = (
            f"process died: {type(error).__name__}: {str(error).strip().splitlines()[-1] if error else ''}"
        )
        self.progress.end(planned.key, planned.name, None)

"""Ray Tune: schedules the missing trials over the CPUs and GPUs of a machine or cluster. Its own state is throwaway."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlcore.sweep.ray.cluster import Connection, connected

# isort: split
from ray import tune
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner

from dmlcore.config.sweep import ClusterConfig, ResourcesConfig
from dmlcore.records import RecordFolder
from dmlcore.sweep.execution.worker import WorkerContext, execute
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.progress import Progress
from dmlcore.sweep.ray.callbacks import Watcher, left_by_nodes
from dmlcore.sweep.ray.remote_worker import run_remote, weights_file
from dmlcore.sweep.ray.stop_signals import StopSignals
from dmlcore.tracking.base import Tracker
from dmlcore.training.run import EpochReport

if TYPE_CHECKING:
    from dmlcore.sweep.search.asha import ASHAPruner
    from dmlcore.sweep.search.search_run import Search


os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")


def run_trials(
    trials: list[PlannedTrial],
    place: WorkerContext,
    tracker: Tracker,
    *,
    resources: ResourcesConfig,
    cluster: ClusterConfig,
    attempts: int,
    state: Path,
    halving: ASHAPruner | None = None,
    search: Search | None = None,
) -> dict[str, str]:
    """Run `trials`; each leaves its record.

    Args:
        trials: what to run; of a search, an example of each kind of trial that it will run.
        place: handed to the workers.
        tracker: told what they report.
        resources: of each trial.
        cluster: where they run.
        attempts: how often a trial whose process dies is tried.
        state: the study's folder for what passes; Tune's own files lie there while it runs.
        halving: ends trials before their last epoch; None: each runs whole.
        search: gives the trials one after the other; None: they are `trials`.

    Returns:
        Trial key -> what Ray says of a trial whose process died every time.

    Raises:
        ClusterError: the cluster cannot run them.
    """
    trials = [replace(trial, weights=weights_file(trial)) for trial in trials]
    with connected(cluster, state, _needs(trials)) as connection:
        left = [] if search else left_by_nodes(trials, connection, RecordFolder(place.records))
        concurrent = resources.max_concurrent or connection.concurrent
        with Progress(search.left() if search else len(left), concurrent) as progress:
            watcher = Watcher(left, place, connection, progress, tracker, halving)
            if left or search:
                _tune(trials, watcher, resources, attempts, state / "tune", search)
    return watcher.died


def _needs(trials: list[PlannedTrial]) -> list[Path]:
    """What the trials read by path."""
    weights = {trial.weights for trial in trials if trial.weights is not None}
    return sorted({trial.data_folder for trial in trials} | weights)


def _tune(
    trials: list[PlannedTrial],
    watcher: Watcher,
    resources: ResourcesConfig,
    attempts: int,
    scratch: Path,
    search: Search | None,
) -> None:
    bundle = _bundle(trials, resources)
    config = TuneConfig(max_concurrent_trials=resources.max_concurrent, reuse_actors=resources.reuse_workers)
    space: dict[str, Any] = {"trial_key": tune.grid_search(list(watcher.trials))}
    if search is not None:
        from dmlcore.sweep.search.searcher import searching

        config, space = searching(search, watcher, bundle, resources), {}
    tuner = Tuner(
        tune.with_resources(_for_workers(watcher), bundle),
        param_space=space,
        tune_config=config,
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


def _for_workers(watcher: Watcher) -> Any:
    """What a worker calls, with what all trials share."""
    return tune.with_parameters(
        _trainable,
        trials=watcher.trials,
        place=watcher.place,
        connection=watcher.connection,
        verdicts=watcher.verdicts,
    )


def _trainable(
    config: dict[str, Any],
    trials: dict[str, PlannedTrial],
    place: WorkerContext,
    connection: Connection,
    verdicts: StopSignals,
) -> None:
    trial = config.get("trial") or trials[config["trial_key"]]

    def report(epoch: EpochReport) -> None:
        # As pairs: of each number that it finds in a dictionary Tune keeps averages, of all trials to its end.
        tune.report({"epoch": epoch.epoch, "metrics": [*epoch.metrics.items()], "status": "running"})
        verdicts.obey(trial)

    verdicts.clear(trial)
    if connection.meeting is not None:
        connection.meeting.check()
    if connection.exchange is None:
        record = execute(trial, place, report)
    else:
        record = run_remote(trial, place, report, connection.exchange)
    tune.report({"status": record.status})


def _bundle(trials: list[PlannedTrial], resources: ResourcesConfig) -> dict[str, float]:
    bundle: dict[str, float] = {
        "cpu": max(trial.cell.config.threads for trial in trials),
        "gpu": resources.gpus,
    }
    if resources.memory_bytes is not None:
        bundle["memory"] = resources.memory_bytes
    return bundle

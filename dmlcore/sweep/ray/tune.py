"""Ray Tune: schedules trials over the CPUs and GPUs of a machine or cluster.

Tune's own storage is a scratch folder that is removed afterwards, and Tuner.restore is never used: it would repeat
Tune's view of the trials, while the truth is the trial records and the logs of searches, which survive a kill at any
moment and are the same whatever ran the trials. An interrupted sweep is planned anew from them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dmlcore.sweep.ray.cluster import connected

# isort: split
from ray import tune
from ray.tune import FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.search import BasicVariantGenerator, Searcher

from dmlcore.config.sweep import SweepConfig
from dmlcore.records import RecordFolder
from dmlcore.sweep.control import Control
from dmlcore.sweep.execution.guards import Budget
from dmlcore.sweep.execution.trial_log import kept_output, say_end, say_epoch
from dmlcore.sweep.execution.worker import WorkerContext, execute
from dmlcore.sweep.live_status import LiveStatus
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.progress import Progress
from dmlcore.sweep.ray.callbacks import HELD, SweepCallback
from dmlcore.sweep.ray.cluster import capacity, check_fits, memory_kills_as_deaths, trial_bundle
from dmlcore.sweep.ray.remote_worker import LogSync, run_remote, sync_with_nodes, weights_file
from dmlcore.sweep.ray.signals import SweepSession, run_unless_cancelled
from dmlcore.tracking.base import Tracker
from dmlcore.training.checkpoint import EpochReport

if TYPE_CHECKING:
    from dmlcore.sweep.search.early_stopping import EarlyStopping
    from dmlcore.sweep.search.search_run import SearchRun

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Tune's handler of Ctrl-C would only stop to save its state; without it KeyboardInterrupt ends the sweep.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

MANY = 10_000
"""A concurrency for searches that limits nothing, as `PlannedTrials._capacity` does: by default actors start singly."""


def run_trials(
    trials: list[PlannedTrial],
    sweep: SweepConfig,
    context: WorkerContext,
    tracker: Tracker,
    *,
    scheduler: EarlyStopping | None = None,
    search: SearchRun | None = None,
    budget: Budget | None = None,
    later: int = 0,
) -> tuple[dict[str, str], str | None]:
    """Run trials through Ray; each leaves its record.

    Args:
        trials: those to run; of a search, an example of each kind of trial that it will run.
        sweep: the section of params.yaml: resources, cluster, attempts.
        context: of the workers.
        tracker: is told what they report.
        scheduler: ends trials before their last epoch; None: each runs to its end.
        search: gives the trials one after the other; None: they are `trials`.
        budget: after which none starts; None: no limit.
        later: trials that can run once these have ended, for the status.

    Returns:
        Trial key -> Ray's reason, of each trial whose process died at every attempt; and why the sweep was halted
        before its last trial, or None.

    Raises:
        ClusterError: the cluster cannot run them.
    """
    trials = [replace(trial, weights=weights_file(trial)) for trial in trials]
    paths = {path for trial in trials for path in (trial.data_folder, trial.weights) if path is not None}
    with connected(sweep.cluster, context.state, sorted(paths)) as connection:
        bundle = trial_bundle(trials, sweep.resources)
        check_fits(bundle, sweep.resources)
        remaining = [] if search else trials
        if connection.storage is not None:
            remaining = sync_with_nodes(remaining, connection.storage, RecordFolder(context.records))
        total = search.remaining if search else len(remaining)
        live = LiveStatus(Control(context.state), total + later, [(t.key, t.name) for t in remaining])
        with Progress(total, sweep.resources.max_concurrent or connection.concurrent) as progress:
            session = SweepSession(context, connection)
            callback = SweepCallback(remaining, session, progress, live, tracker, scheduler, budget)
            if search or remaining:
                _fit(_tuner(bundle, sweep, callback, search), callback)
        session.stop_signals.remove()
    return callback.died, callback.halted


def _tuner(
    bundle: dict[str, float], sweep: SweepConfig, callback: SweepCallback, search: SearchRun | None
) -> Tuner:
    most, reuse = sweep.resources.max_concurrent, sweep.resources.reuse_workers
    if search is None:
        space = {"trial_key": tune.grid_search(list(callback.trials))}
        tune_config = TuneConfig(search_alg=Grid(callback, most), reuse_actors=reuse)
    else:
        space = {}
        tune_config = TuneConfig(
            search_alg=PlannedTrials(search, callback, bundle, most),
            num_samples=-1,
            max_concurrent_trials=MANY,
            reuse_actors=reuse,
        )
    # The trials go to each worker once, with the function; those of a search, not known yet, come in their config.
    trainable = tune.with_parameters(_run_trial, session=callback.session, trials=callback.trials)
    return Tuner(
        # One bundle: the processes of a trial are on one node, where they share its checkpoint and talk fastest.
        tune.with_resources(trainable, PlacementGroupFactory([bundle], strategy="STRICT_PACK")),
        param_space=space,
        tune_config=tune_config,
        run_config=RunConfig(
            name="tune",
            storage_path=str(callback.session.context.state / "tune"),
            failure_config=FailureConfig(max_failures=sweep.attempts - 1),
            callbacks=[callback],
            verbose=0,
        ),
    )


def _fit(tuner: Tuner, callback: SweepCallback) -> None:
    try:
        with memory_kills_as_deaths():
            tuner.fit()
    except Exception as error:
        if not callback.progress.all_ended:
            raise
        # After the last trial Tune reads its own files, which a full disk has cut short; the records are the truth.
        print(
            f"sweep: all trials have ended, but Ray Tune failed afterwards: {type(error).__name__}: {error}"
        )
    finally:
        shutil.rmtree(callback.session.context.state / "tune", ignore_errors=True)


def _run_trial(config: dict[str, Any], session: SweepSession, trials: dict[str, PlannedTrial]) -> None:
    """Run a trial in a worker."""
    trial = config.get("trial") or trials[config["trial_key"]]
    connection, stop_signals = session.connection, session.stop_signals
    if stop_signals.is_halted():
        tune.report({"status": HELD})
        return

    def report(epoch: EpochReport) -> None:
        say_epoch(epoch, trial.cell.config.train.epochs)
        log.try_to_send()
        # Metrics as pairs: of each number in a dictionary Tune keeps running averages until the sweep ends, for all
        # trials (90 KB a trial).
        tune.report({"epoch": epoch.epoch, "metrics": [*epoch.metrics.items()], "status": "running"})
        stop_signals.check(trial)

    context = replace(
        session.context, run=partial(run_unless_cancelled, trial, stop_signals, session.context.run)
    )
    with LogSync(trial.key, session.context.state, connection.storage) as log, kept_output(log.file):
        stop_signals.reset(trial)
        # A node that joins after the driver's check of all nodes is checked by its first trial.
        if connection.probe is not None:
            connection.probe.check()
        if connection.storage is None:
            record = execute(trial, context, report)
        else:
            record = run_remote(trial, context, report, connection.storage)
        say_end(record)
    tune.report({"status": record.status})


class Grid(BasicVariantGenerator):
    """Tune's own generator, which gives the trials in their order, until the sweep is halted."""

    def __init__(self, callback: SweepCallback, most: int | None) -> None:
        super().__init__(max_concurrent=most or 0)
        self.callback = callback

    def next_trial(self) -> Any:
        """Return the next trial; None: none is left."""
        if self.callback.halted is not None:
            self.set_finished()
        return super().next_trial()


class PlannedTrials(Searcher):
    """Gives Tune the trials of a search, never more at a time than can start at once.

    A setting is suggested when its trial can start, so that it draws on every result known by then.

    Args:
        search: what to run.
        callback: prepares a trial for its worker, and fetches its record.
        bundle: CPUs, GPUs and memory of a trial, as `trial_bundle`.
        most: how many run at a time at most; None: as many as the cluster carries.
    """

    def __init__(
        self, search: SearchRun, callback: SweepCallback, bundle: Mapping[str, float], most: int | None
    ) -> None:
        super().__init__()
        self.search, self.callback, self.bundle, self.most = search, callback, bundle, most
        self._running: dict[str, PlannedTrial] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune saves its searcher for Tuner.restore, which is never used."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """Return the config of the next trial; None: wait; FINISHED: there is none left."""
        if self.callback.halted is not None:
            return Searcher.FINISHED
        if len(self._running) >= self._capacity():
            return None
        while (trial := self.search.next_trial()) is not None:
            ready = self.callback.prepare(trial)
            if ready is not None:
                self._running[trial_id] = trial
                return {"trial_key": ready.key, "trial": ready}
            self.search.record_result(trial)
        return Searcher.FINISHED if self.search.finished else None

    def _capacity(self) -> int:
        """Return how many trials the cluster can run now: nodes may join and leave."""
        return max(1, min(capacity(self.bundle), self.most or MANY))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial = self._running.pop(trial_id)
        self.callback.fetch_record(trial)  # Tune calls its searcher before its callbacks
        self.search.record_result(trial)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the log and the records are the state."""

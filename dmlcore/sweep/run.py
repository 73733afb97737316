"""The sweep stage: plan, run what is missing, publish the table of trials."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlcore.config.sweep import SearchConfig, SweepConfig
from dmlcore.core.io import write_atomically
from dmlcore.data.dataset import PreparedDataset
from dmlcore.records import RecordFolder, trials_table, write_table
from dmlcore.sweep.baselines import raw_pixel_baseline
from dmlcore.sweep.dry_run.forecast import at_a_time
from dmlcore.sweep.execution.limits import Limits, over_budget, pop_kill_reason
from dmlcore.sweep.execution.lock import sweep_lock
from dmlcore.sweep.execution.outcomes import record_lost, reevaluate, relabel
from dmlcore.sweep.execution.worker import WorkerContext
from dmlcore.sweep.plan import Plan, PlannedTrial
from dmlcore.sweep.planning import make_plan
from dmlcore.tracking.base import Tracker
from dmlcore.training.run import TrialResult, run_trial

if TYPE_CHECKING:
    from dmlcore.sweep.search.asha import ASHAPruner
    from dmlcore.sweep.search.search_run import Search


@dataclass(frozen=True)
class SweepFolders:
    """Where a study keeps things; all absolute."""

    study: Path
    prepared: Path

    @property
    def state(self) -> Path:
        return self.study / "state"

    @property
    def records(self) -> Path:
        return self.state / "records"

    @property
    def results(self) -> Path:
        return self.study / "results"


def run_sweep(
    sweep: SweepConfig,
    folders: SweepFolders,
    tracker: Tracker,
    run: Callable[..., TrialResult] = run_trial,
) -> Plan:
    """Run the trials that have no record and write `results/trials.parquet` and `results/datasets.json`.

    Args:
        sweep: what to run.
        folders: where.
        tracker: told of the trials' course.
        run: trains and evaluates in the workers, as `run_trial` does.

    Returns:
        The plan as it stands afterwards; `plan.missing` are the trials that failed.

    Raises:
        SweepBusyError: another process holds the sweep's lock.
        ClusterError: the Ray cluster cannot run it.
        ConfigError: the sweep cannot be planned.
    """
    folders.records.mkdir(parents=True, exist_ok=True)
    with sweep_lock(folders.state):
        return _locked(sweep, folders, tracker, run)


def _locked(
    sweep: SweepConfig, folders: SweepFolders, tracker: Tracker, run: Callable[..., TrialResult]
) -> Plan:
    plan = make_plan(sweep, study=folders.study, prepared=folders.prepared)
    limits = Limits(sweep.resources.time_limit_seconds, sweep.resources.memory_bytes)
    place = WorkerContext(folders.records, folders.state / "locks", sweep.resources.gpus, limits, run)
    print("sweep: " + ", ".join(f"{count} {name}" for name, count in plan.counts().items()), flush=True)
    try:
        if plan.reevaluate or plan.missing or plan.to_ask:
            tracker.prepare()
        for trial, earlier in plan.reevaluate:
            reevaluate(trial, earlier, place, tracker)
        if plan.missing or plan.to_ask:
            _Missing(sweep, plan, folders, place, tracker).run()
    finally:
        after = make_plan(sweep, study=folders.study, prepared=folders.prepared)
        relabel(after, RecordFolder(folders.records))
        publish(after, folders)
    late = tracker.sync([*after.records.values(), *after.others])
    if late:
        print(f"sweep: {late} run(s) brought up to their records in MLflow afterwards", flush=True)
    return after


@dataclass(frozen=True)
class _Missing:
    """The trials of a plan that have no record, and what running them takes."""

    sweep: SweepConfig
    plan: Plan
    folders: SweepFolders
    place: WorkerContext
    tracker: Tracker

    def run(self) -> None:
        """Run them; each leaves its record."""
        if self.sweep.search is None:
            self._run_grid()
        else:
            self._run_search(self.sweep.search)

    def _run_grid(self) -> None:
        for trial in self.plan.missing:
            pop_kill_reason(self.place.kill_reason_file(trial.key))  # of an earlier run of the stage
        lost = self._over_budget(self.plan.missing)
        waiting = [trial for trial in self.plan.missing if trial.key not in lost]
        if waiting:
            lost |= self._through_ray(waiting)
        record_lost(self.plan.missing, lost, self.place, self.tracker)

    def _run_search(self, search: SearchConfig) -> None:
        from dmlcore.sweep.search.plan import group_plans
        from dmlcore.sweep.search.search_run import open_search_run

        plans = group_plans(self.sweep, search, study=self.folders.study, prepared=self.folders.prepared)
        course = open_search_run(plans, self.plan.recorded, self.place, self.tracker, self._over_budget)
        lost = self._through_ray([plan.example for plan in self.plan.searches], course)
        record_lost(course.given, lost, self.place, self.tracker)

    def _through_ray(self, trials: list[PlannedTrial], search: Search | None = None) -> dict[str, str]:
        from dmlcore.sweep.ray.tune import run_trials

        return run_trials(
            trials,
            self.place,
            self.tracker,
            resources=self.sweep.resources,
            cluster=self.sweep.cluster,
            attempts=self.sweep.attempts,
            state=self.folders.state,
            halving=_halving(self.sweep, self.plan),
            search=search,
        )

    def _over_budget(self, trials: list[PlannedTrial]) -> dict[str, str]:
        examples = [search.example for search in self.plan.searches] or self.plan.missing
        concurrent = at_a_time(examples, self.sweep.resources)
        storage = self.folders.study / self.sweep.storage
        return over_budget(trials, storage, self.sweep.disk_budget_bytes, concurrent)


def _halving(sweep: SweepConfig, plan: Plan) -> ASHAPruner | None:
    if sweep.stop_early is None:
        return None
    from dmlcore.sweep.search.asha import ASHAPruner

    halving = ASHAPruner(sweep.stop_early)
    halving.recall((trial, plan.records[trial.key]) for trial in plan.trials if trial.key in plan.records)
    return halving


def publish(plan: Plan, folders: SweepFolders) -> None:
    """Write what `aggregate` reads."""
    write_table(trials_table(plan.rows()), folders.results / "trials.parquet")
    names = sorted({trial.cell.config.dataset for trial in plan.trials})
    summaries = {name: _summary(folders.prepared / name, folders.state / "baselines") for name in names}
    write_atomically(
        folders.results / "datasets.json", json.dumps(summaries, indent=1, sort_keys=True) + "\n"
    )


def _summary(folder: Path, baselines: Path) -> dict[str, Any]:
    data = PreparedDataset.open(folder)
    return {**data.summary, "raw_pixels": raw_pixel_baseline(data, baselines)}

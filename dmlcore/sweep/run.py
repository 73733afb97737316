"""The sweep stage: plan, run what is missing, publish the table of trials."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlcore.config.sweep import SweepConfig
from dmlcore.core.io import write_together
from dmlcore.data.dataset import PreparedDataset
from dmlcore.data.verification import verify_once
from dmlcore.records import RecordFolder
from dmlcore.sweep.baselines import raw_pixel_baseline
from dmlcore.sweep.control import Control
from dmlcore.sweep.dry_run.disk import over_budget
from dmlcore.sweep.dry_run.forecast import concurrent_trials
from dmlcore.sweep.execution.guards import Budget, Limits, SweepHaltedError, pop_kill_reason, sweep_lock
from dmlcore.sweep.execution.outcomes import record_lost, reevaluate, relabel
from dmlcore.sweep.execution.worker import WorkerContext
from dmlcore.sweep.plan import Plan, PlannedTrial
from dmlcore.sweep.planning import make_plan
from dmlcore.sweep.table import plan_rows, table_bytes, trials_table
from dmlcore.sweep.team_store import TeamStore
from dmlcore.sweep.team_sync import TeamSync
from dmlcore.tracking.base import Tracker
from dmlcore.training.run import TrialResult, run_trial

if TYPE_CHECKING:
    from dmlcore.sweep.search.early_stopping import EarlyStopping

# Ray and Optuna are imported where they are used: a sweep with nothing to run does without the seconds they take.


@dataclass(frozen=True)
class SweepFolders:
    """The folders of a study; all absolute."""

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
    sweep: SweepConfig, folders: SweepFolders, tracker: Tracker, run: Callable[..., TrialResult] = run_trial
) -> Plan:
    """Run the trials that have no record and write `results/trials.parquet` and `results/datasets.json`.

    Args:
        sweep: what to run.
        folders: where.
        tracker: is told how the trials progress.
        run: trains and evaluates in the workers, as `run_trial` does.

    Returns:
        The plan after the run; `plan.missing` are the trials that failed.

    Raises:
        SweepBusyError: another process holds the sweep's lock.
        ClusterError: the Ray cluster cannot run it.
        ConfigError: the sweep cannot be planned.
        DataError: a data set was changed since it was prepared.
        NewerRecordError: the record of one of its trials is of a later version of dmlcore.
        SweepHaltedError: somebody drained it, or its budget is spent; all is written as after a complete run.
    """
    folders.records.mkdir(parents=True, exist_ok=True)
    with sweep_lock(folders.state), Control(folders.state).shown():
        limits = Limits(sweep.resources.time_limit_seconds, sweep.resources.memory_bytes)
        timeout = sweep.resources.process_timeout_seconds
        team = TeamStore.of(sweep, folders.study)
        sync = TeamSync(team, RecordFolder(folders.records), folders.study / sweep.storage, _say)
        plan = sync.taking(partial(make_plan, sweep, study=folders.study, prepared=folders.prepared))
        # Workers do not wait for a store that did not answer the driver.
        reached = None if sync.fault else team
        context = WorkerContext(folders.state, sweep.resources.gpus, limits, timeout, run, reached)
        _verify_data(plan, folders)
        _set_aside_broken(plan, RecordFolder(folders.records))
        print("sweep: " + ", ".join(f"{count} {name}" for name, count in plan.counts().items()), flush=True)
        # Measured and stored before the trials: `publish` below must neither take long nor fail after Ctrl-C.
        _summaries(plan, folders)
        try:
            with sync.leaving():
                halted = _run_plan(plan, sweep, folders, tracker, context)
                if plan.waiting and halted is None and sweep.search is None:
                    second = _second_plan(plan, sweep, folders, sync)
                    halted = _run_plan(second, sweep, folders, tracker, context)
        finally:
            # After an interruption or a cluster that broke down too: the table always shows every record.
            after = make_plan(sweep, study=folders.study, prepared=folders.prepared)
            relabel(after, RecordFolder(folders.records))
            publish(after, folders)
        late = tracker.sync(after.recorded)
        if late:
            print(f"sweep: {late} run(s) brought up to their records in MLflow afterwards", flush=True)
        left = len(after.missing) + len(after.waiting) + after.remaining_trials
        if halted is not None and left:
            raise SweepHaltedError(f"{halted}; what ran has ended, {left} trials are left")
        return after


def _say(line: str) -> None:
    print(line, flush=True)


def _second_plan(plan: Plan, sweep: SweepConfig, folders: SweepFolders, sync: TeamSync) -> Plan:
    """Plan the trials whose margins come from the scores of those that have just run, and no other again."""
    attempted = {trial.key for trial in plan.missing}

    def again() -> Plan:
        return replace(make_plan(sweep, study=folders.study, prepared=folders.prepared), attempted=attempted)

    plan = sync.taking(again)
    _set_aside_broken(plan, RecordFolder(folders.records))
    if plan.missing:
        print(f"sweep: {len(plan.missing)} trials have their margins from scores now", flush=True)
    return plan


def _verify_data(plan: Plan, folders: SweepFolders) -> None:
    """Refuse data that was changed since it was prepared: records would claim the hash that it had.

    Raises:
        DataError: names the data set.
    """
    for name in plan.datasets:
        data = PreparedDataset.open(folders.prepared / name)
        verify_once(data, folders.state / "verified" / f"{name}.json")


def _set_aside_broken(plan: Plan, records: RecordFolder) -> None:
    """Set aside the files that should be records of planned trials, which then run again; name the others.

    Raises:
        NewerRecordError: such a file is of a later version of dmlcore.
    """
    for trial in plan.trials:
        if trial.key in plan.faults:
            records.read_or_set_aside(trial.key)
    for error in plan.foreign_faults:
        print(f"sweep: not of this sweep, left as it is: {error}", flush=True)


def _run_plan(
    plan: Plan, sweep: SweepConfig, folders: SweepFolders, tracker: Tracker, context: WorkerContext
) -> str | None:
    """Run what a plan has left: evaluate again, then train through Ray. Each trial leaves a record.

    Returns:
        Why it was halted before the last trial; None: it was not.
    """
    unfinished = plan.missing or plan.remaining_trials
    if plan.reevaluate or unfinished:
        tracker.prepare()
    for trial, earlier in plan.reevaluate:
        reevaluate(trial, earlier, context, tracker)
    if not unfinished:
        return None
    budget = None if sweep.budget_hours is None else Budget(sweep.budget_hours, plan.spent_seconds)
    if budget is not None and budget.is_spent():
        return budget.reason
    examples = [search.example for search in plan.searches] or plan.missing
    concurrent = concurrent_trials(examples, sweep.resources)

    def refuse(trials: list[PlannedTrial]) -> dict[str, str]:
        return over_budget(trials, folders.study / sweep.storage, sweep.disk_budget_bytes, concurrent)

    search, lost, halted = None, {}, None
    if sweep.search is None:
        for trial in plan.missing:
            pop_kill_reason(context.kill_reason_file(trial.key))  # of an earlier run of the stage
        lost = refuse(plan.missing)
        examples = [trial for trial in plan.missing if trial.key not in lost]
    else:
        from dmlcore.sweep.search.plan import group_plans
        from dmlcore.sweep.search.search_run import SearchRun

        plans = group_plans(sweep, sweep.search, study=folders.study, prepared=folders.prepared)
        search = SearchRun(plans, plan.recorded, context, tracker, refuse, sweep.priority)
    if examples:
        from dmlcore.sweep.ray.tune import run_trials

        scheduler = _early_stopping(sweep, plan)
        died, halted = run_trials(
            examples,
            sweep,
            context,
            tracker,
            scheduler=scheduler,
            search=search,
            budget=budget,
            later=sum(not waiting.failed for waiting in plan.waiting),
        )
        lost |= died
    record_lost(search.started if search else plan.missing, lost, context, tracker)
    return halted


def _early_stopping(sweep: SweepConfig, plan: Plan) -> EarlyStopping | None:
    if sweep.stop_early is None:
        return None
    from dmlcore.sweep.search.early_stopping import SCHEDULERS

    scheduler = SCHEDULERS[sweep.stop_early.scheduler](sweep.stop_early)
    # The trials of earlier runs count, so that a trial is ranked as if the sweep had never been interrupted.
    scheduler.replay((trial, plan.records[trial.key]) for trial in plan.trials if trial.key in plan.records)
    return scheduler


def publish(plan: Plan, folders: SweepFolders) -> None:
    """Write the inputs of stage `aggregate`: the table of trials, and the summaries of their data sets."""
    path = folders.results / "trials.parquet"
    if not plan.trials and path.exists():
        # A search that was interrupted before its first trial, where the study had been a grid.
        print(f"sweep: no trial yet, {path} stays as it was", flush=True)
        return
    summaries = json.dumps(_summaries(plan, folders), indent=1, sort_keys=True) + "\n"
    table = table_bytes(trials_table(plan_rows(plan)))
    write_together(folders.results, {"trials.parquet": table, "datasets.json": summaries})


def _summaries(plan: Plan, folders: SweepFolders) -> dict[str, dict[str, Any]]:
    """Return the summary of each data set, with its raw-pixel baseline; a search may have no trials yet."""
    found = {}
    for name in plan.datasets:
        data = PreparedDataset.open(folders.prepared / name)
        found[name] = {**data.summary, "raw_pixels": raw_pixel_baseline(data, folders.state / "baselines")}
    return found

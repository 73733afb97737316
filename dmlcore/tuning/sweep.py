"""The sweep stage: plan, run what is missing, publish the table of trials."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from dmlcore.atomic import write_atomically
from dmlcore.config import SweepConfig
from dmlcore.data.packed import PreparedDataset
from dmlcore.records import RecordFolder, TrialRecord, finite, trials_table, write_table
from dmlcore.training.run import evaluate_stored
from dmlcore.training.store import TrialStore
from dmlcore.tuning.forecast import at_a_time
from dmlcore.tuning.limits import Limits, over_budget, take_reason
from dmlcore.tuning.lock import sweep_lock
from dmlcore.tuning.plan import Plan, PlannedTrial, make_plan
from dmlcore.tuning.worker import Tracker, Workplace, attempts_at, make_record


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


def run_sweep(sweep: SweepConfig, folders: SweepFolders, tracker: Tracker) -> Plan:
    """Run the trials that have no record and write `results/trials.parquet` and `results/datasets.json`.

    Returns:
        The plan as it stands afterwards; `plan.missing` are the trials that failed.

    Raises:
        SweepBusyError: another process holds the sweep's lock.
        ClusterError: the Ray cluster cannot run it.
        ConfigError: the sweep cannot be planned.
    """
    folders.records.mkdir(parents=True, exist_ok=True)
    with sweep_lock(folders.state):
        return _locked(sweep, folders, tracker)


def _locked(sweep: SweepConfig, folders: SweepFolders, tracker: Tracker) -> Plan:
    plan = make_plan(sweep, study=folders.study, prepared=folders.prepared)
    print("sweep: " + ", ".join(f"{count} {name}" for name, count in plan.counts().items()), flush=True)
    try:
        if plan.reevaluate or plan.missing:
            tracker.prepare()
        for trial, earlier in plan.reevaluate:
            _reevaluate(trial, earlier, folders, tracker)
        if plan.missing:
            _run_missing(sweep, plan, folders, tracker)
    finally:
        after = make_plan(sweep, study=folders.study, prepared=folders.prepared)
        publish(after, folders)
    late = tracker.sync([*after.records.values(), *after.others])
    if late:
        print(f"sweep: {late} run(s) brought up to their records in MLflow afterwards", flush=True)
    return after


def _run_missing(sweep: SweepConfig, plan: Plan, folders: SweepFolders, tracker: Tracker) -> None:
    resources = sweep.resources
    limits = Limits(resources.time_limit_seconds, resources.memory_bytes)
    place = Workplace(folders.records, folders.state / "locks", resources.gpus, tracker, limits)
    for trial in plan.missing:
        take_reason(place.reason_file(trial.key))  # of an earlier run of the stage
    concurrent = at_a_time(plan.missing, resources)
    lost = over_budget(plan.missing, folders.study / sweep.storage, sweep.disk_budget_bytes, concurrent)
    waiting = [trial for trial in plan.missing if trial.key not in lost]
    if waiting:
        from dmlcore.tuning.ray_tune import run_trials

        lost |= run_trials(
            waiting,
            place,
            resources=resources,
            cluster=sweep.cluster,
            attempts=sweep.attempts,
            state=folders.state,
        )
    record_lost([trial for trial in plan.missing if trial.key in lost], lost, place)


def record_lost(trials: Iterable[PlannedTrial], reasons: Mapping[str, str], place: Workplace) -> None:
    """Write the `failed` record of trials that left none: not started, or their process died.

    Args:
        trials: those of this sweep.
        reasons: trial key -> what is known of its end, unless the watchdog knows better.
        place: the workers'.
    """
    records = RecordFolder(place.records)
    for trial in trials:
        existing = records.read_or_set_aside(trial.key)
        if existing is not None and existing.done:
            continue
        reason = take_reason(place.reason_file(trial.key)) or reasons[trial.key]
        record = make_record(trial, status="failed", error=reason, attempts=attempts_at(trial.store_folder))
        try:
            records.write(record)
        except OSError as error:
            print(
                f"sweep: {trial.name} failed ({reason}) and its record was not written: {error}", flush=True
            )
        place.tracker.finish(record, trial.name)


def _reevaluate(trial: PlannedTrial, earlier: TrialRecord, folders: SweepFolders, tracker: Tracker) -> None:
    """A new record from stored embeddings: nothing is trained."""
    started = time.monotonic()
    metrics, utility = evaluate_stored(TrialStore(trial.store_folder), trial.cell.config)
    kept = {key: value for key, value in earlier.metrics.items() if key not in metrics}
    record = make_record(
        trial,
        status="finished",
        files=earlier.files,
        curve=earlier.curve,
        metrics=kept | finite(metrics),
        utility=asdict(utility),
        attempts=earlier.attempts,
        seconds=earlier.seconds + time.monotonic() - started,
    )
    RecordFolder(folders.records).write(record)
    tracker.finish(record, trial.name)


def publish(plan: Plan, folders: SweepFolders) -> None:
    """Write what `aggregate` reads."""
    write_table(trials_table(plan.rows()), folders.results / "trials.parquet")
    names = sorted({trial.cell.config.dataset for trial in plan.trials})
    summaries = {name: PreparedDataset.open(folders.prepared / name).summary for name in names}
    write_atomically(
        folders.results / "datasets.json", json.dumps(summaries, indent=1, sort_keys=True) + "\n"
    )

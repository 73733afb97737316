"""Records that the driver writes: of trials that left none, and of those evaluated again from stored embeddings."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from dmlcore.core.sealed_json import finite
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.execution.guards import pop_kill_reason
from dmlcore.sweep.execution.worker import WorkerContext, attempts_at, make_record
from dmlcore.sweep.plan import Plan, PlannedTrial
from dmlcore.tracking.base import Tracker
from dmlcore.training.evaluation import evaluate_stored
from dmlcore.training.store import TrialStore


def record_lost(
    trials: Iterable[PlannedTrial], reasons: Mapping[str, str], context: WorkerContext, tracker: Tracker
) -> None:
    """Write the `failed` record of trials that left none: they were not started, or their process died.

    Args:
        trials: those of this sweep; the ones in `reasons` are recorded.
        reasons: trial key -> what is known of its end; a reason that the watchdog left is preferred.
        context: of the workers.
        tracker: is told of each record.
    """
    records = RecordFolder(context.records)
    for trial in trials:
        if trial.key not in reasons:
            continue
        # A process may die after its record: Ray then reports a failure of a trial that is complete.
        existing = records.read_or_set_aside(trial.key)
        if existing is not None and trial.is_complete(existing):
            continue
        reason = pop_kill_reason(context.kill_reason_file(trial.key)) or reasons[trial.key]
        record = make_record(trial, status="failed", error=reason, attempts=attempts_at(trial.store_folder))
        try:
            records.write(record)
        except OSError as error:
            # Most likely the full disk that failed the trial. Without a record it runs again; the others matter more.
            print(
                f"sweep: {trial.name} failed ({reason}) and its record was not written: {error}", flush=True
            )
        tracker.finish(record, trial.name)


def reevaluate(trial: PlannedTrial, earlier: TrialRecord, context: WorkerContext, tracker: Tracker) -> None:
    """Write a new record of a trained trial from its stored embeddings; nothing is trained."""
    started = time.monotonic()
    store = TrialStore(trial.store_folder, earlier.files)
    metrics, utility = evaluate_stored(store.load, trial.cell.config.evaluation)
    unchanged = {key: value for key, value in earlier.metrics.items() if key not in metrics}
    record = make_record(
        trial,
        status="finished",
        files=earlier.files,
        curve=earlier.curve,
        metrics=unchanged | finite(metrics),
        utility=utility,
        attempts=earlier.attempts,
        seconds=earlier.seconds + time.monotonic() - started,
    )
    RecordFolder(context.records).write(record)
    tracker.finish(record, trial.name)


def relabel(plan: Plan, records: RecordFolder) -> int:
    """Give records the labels of their cells, and return how many had others.

    Labels are in no key: params.yaml may rename a loss that is trained, and which settings of a search are chosen is
    known only at its end.
    """
    changed = 0
    for trial in plan.trials:
        record = plan.records.get(trial.key)
        if record is not None and record.labels != trial.cell.labels:
            plan.records[trial.key] = record.model_copy(update={"labels": trial.cell.labels})
            records.write(plan.records[trial.key])
            changed += 1
    return changed

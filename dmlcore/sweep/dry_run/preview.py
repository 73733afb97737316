"""Preview: what a sweep would run and need, as lines of text for `dmlcore plan` and the stage's dry run."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dmlcore.config.base import canonical
from dmlcore.config.sweep import SweepConfig
from dmlcore.records import TrialRecord, flatten
from dmlcore.sweep.dry_run.disk import (
    disk_estimate,
    folder_bytes,
    image_counts,
    missing_features,
    over_budget,
)
from dmlcore.sweep.dry_run.forecast import PastTrials, concurrent_trials
from dmlcore.sweep.dry_run.gpu_forecast import forecast_lines
from dmlcore.sweep.plan import Plan, PlannedTrial, WaitingTrial
from dmlcore.sweep.plan_cache import PLAN_CACHE
from dmlcore.sweep.progress import duration, host_of, size

NO_ESTIMATE = "unknown, no trial of these data sets and backbones has finished yet"


def preview(plan: Plan, sweep: SweepConfig, storage: Path) -> Iterator[str]:
    """Yield a line for each cell, then what changed if it is stale, and the needs of all that is to run.

    Args:
        plan: the sweep against its records.
        sweep: its section of params.yaml.
        storage: the folder of checkpoints and embeddings.
    """
    states = cell_states(plan)
    for trial in plan.trials:
        state = states[trial.key]
        yield f"{state.status:7} {trial.key}  {trial.name}{_remark(state, plan.records.get(trial.key))}"
        fault = [plan.faults[trial.key]] if trial.key in plan.faults else []
        yield from (f"          {line}" for line in (*state.changes, *fault))
    for waiting in plan.waiting:
        yield f"{'failed' if waiting.failed else 'waiting':7} {'':25}  {waiting.name}: {waiting.reason}"
    counts = Counter(
        [*(state.status for state in states.values()), *["waiting for scores"] * len(plan.waiting)]
    )
    kinds = ("cached", "new", "stale", "failed", *(["waiting for scores"] if plan.waiting else []))
    yield f"{sum(counts.values())} cells: " + ", ".join(f"{counts[name]} {name}" for name in kinds)
    yield from (f"not of this sweep, left as it is: {error}" for error in plan.foreign_faults)
    past = PastTrials(plan.recorded)
    yield from _searches(plan, sweep, past)
    if plan.missing:
        yield from _needs(plan, sweep, storage, past)
    yield from _on_gpus(plan, past)
    PLAN_CACHE.save()


def _remark(state: CellState, record: TrialRecord | None) -> str:
    if record is not None and not record.done:
        return f": {record.error}"
    if record is not None and (host := host_of(record)) != platform.node():
        return f" (ran on {host})"
    return " (trained: evaluated again from its stored embeddings)" if state.trained else ""


def _searches(plan: Plan, sweep: SweepConfig, past: PastTrials) -> Iterator[str]:
    for search in plan.searches:
        then = f", then the chosen setting at {search.seeds} seeds" if search.remaining else ""
        yield f"search of [{search.name}]: {search.suggested} tried, {search.remaining} still to try{then}"
    if plan.remaining_trials:
        yield f"time of the searches: {_search_time(plan, sweep, past)}"


def _search_time(plan: Plan, sweep: SweepConfig, past: PastTrials) -> str:
    remaining = [(count, past.seconds(example)) for example, count in _still_to_try(plan)]
    seconds = sum(count * each for count, each in remaining if each is not None)
    if not seconds:
        return NO_ESTIMATE
    concurrent = concurrent_trials([search.example for search in plan.searches], sweep.resources)
    return f"about {duration(seconds / concurrent)}, {duration(seconds)} of trials at most"


def _still_to_try(plan: Plan) -> list[tuple[PlannedTrial, int]]:
    """Return an example of each search's trials and how many there will be at most.

    At most: no trial is stopped early, and the chosen setting runs at each further seed.
    """
    unfinished = (search for search in plan.searches if search.remaining)
    return [(search.example, search.remaining + search.seeds - 1) for search in unfinished]


def _on_gpus(plan: Plan, past: PastTrials) -> Iterator[str]:
    single: list[PlannedTrial | WaitingTrial] = [*plan.missing, *_later(plan)]
    counted = [*_still_to_try(plan), *((trial, 1) for trial in single)]
    known = (*plan.trials, *(search.example for search in plan.searches))
    folders = {trial.cell.config.dataset: trial.data_folder for trial in known}
    names = sorted({trial.cell.config.dataset for trial, _ in counted})
    if counted:
        yield from forecast_lines(counted, {name: image_counts(folders[name]) for name in names}, past)


def _needs(plan: Plan, sweep: SweepConfig, storage: Path, past: PastTrials) -> Iterator[str]:
    concurrent = min(len(plan.missing), concurrent_trials(plan.missing, sweep.resources))
    later = f", then {n} whose margins those give" if (n := len(_later(plan))) else ""
    yield f"to run: {len(plan.missing)} trials, {concurrent} at a time on this machine{_each(plan, sweep)}{later}"
    yield f"time: {_time(plan, concurrent, past)}"
    yield f"memory: {_memory(plan, concurrent, past)}"
    estimates = [disk_estimate(trial) for trial in plan.missing]
    later_bytes = len(_later(plan)) * max(estimate.persistent for estimate in estimates)
    persistent = sum(estimate.persistent for estimate in estimates) + later_bytes
    temporary = concurrent * max(estimate.temporary for estimate in estimates)
    features = sum(missing_features(plan.missing).values())
    shared = f", {size(features)} of it features of frozen trunks" if features else ""
    kept, present = size(persistent + features), size(folder_bytes(storage))
    yield f"disk: {kept} to keep{shared}, {size(temporary)} more while trials run; {storage} has {present} already"
    if sweep.budget_hours is not None:
        spent = duration(plan.spent_seconds)
        yield f"budget of {sweep.budget_hours:g} hours of trials: {spent} are spent, beyond it no trial starts"
    if refused := over_budget(plan.missing, storage, sweep.disk_budget_bytes, concurrent):
        yield f"disk budget of {size(sweep.disk_budget_bytes or 0)}: {len(refused)} trials do not fit and will fail"


def _each(plan: Plan, sweep: SweepConfig) -> str:
    """Say what a trial over several processes takes."""
    processes = sweep.resources.processes_per_trial
    if processes == 1:
        return ""
    cpus = processes * max(trial.cell.config.threads for trial in plan.missing)
    gpus = f" and {sweep.resources.gpus:g} GPUs" if sweep.resources.gpus else ""
    return f"; each of {processes} processes, with {cpus} CPUs{gpus} of one node"


def _later(plan: Plan) -> list[WaitingTrial]:
    """Return the trials that can run once others have finished."""
    return [waiting for waiting in plan.waiting if not waiting.failed]


def _time(plan: Plan, concurrent: int, past: PastTrials) -> str:
    trials: list[PlannedTrial | WaitingTrial] = [*plan.missing, *_later(plan)]
    known = [seconds for trial in trials if (seconds := past.seconds(trial)) is not None]
    if not known:
        return NO_ESTIMATE
    left_out = len(trials) - len(known)
    without = f", without {left_out} that resemble none that finished" if left_out else ""
    return f"about {duration(sum(known) / concurrent)}, {duration(sum(known))} of trials{without}"


def _memory(plan: Plan, concurrent: int, past: PastTrials) -> str:
    known = [memory for trial in plan.missing if (memory := past.memory_bytes(trial)) is not None]
    if not known:
        return NO_ESTIMATE
    return f"up to {size(max(known))} a trial, {size(concurrent * max(known))} in all"


WEIGHTS = "model.backbone.weights"
CODE = {"training_code": "training code", "evaluation_code": "evaluation code"}
ABSENT = "default"


@dataclass(frozen=True)
class CellState:
    """A cell against the records: `cached` is done; `failed` ran under this key and runs again; `stale` was recorded
    under another key, from which `changes` differ; `new` was never recorded."""

    status: Literal["cached", "failed", "stale", "new"]
    changes: tuple[str, ...] = ()
    trained: bool = False
    """Only its evaluation is missing: it is made from the stored embeddings."""


def cell_states(plan: Plan) -> dict[str, CellState]:
    """Return trial key -> what the sweep would do with it and why."""
    trained = {trial.key: earlier for trial, earlier in plan.reevaluate}
    others: dict[str, list[TrialRecord]] = {}
    for record in plan.others:
        others.setdefault(_identity(record.labels), []).append(record)
    return {
        trial.key: _state(
            trial,
            plan.records.get(trial.key),
            others.get(_identity(trial.cell.labels), []),
            trained.get(trial.key),
        )
        for trial in plan.trials
    }


def _identity(labels: Mapping[str, Any]) -> str:
    return json.dumps(labels, sort_keys=True)


def _state(
    trial: PlannedTrial, record: TrialRecord | None, same_cell: list[TrialRecord], trained: TrialRecord | None
) -> CellState:
    if record is not None:
        return CellState("cached" if record.done else "failed")
    # Of several records of this cell, say under two earlier settings, the one with the fewest changes explains best.
    if trained is not None and trained in same_cell:
        same_cell = [trained]
    if not same_cell:
        return CellState("new", trained=trained is not None)
    changes = min((differences(earlier, trial) for earlier in same_cell), key=len)
    return CellState("stale", changes, trained=trained is not None)


def differences(earlier: TrialRecord, trial: PlannedTrial) -> tuple[str, ...]:
    """List the inputs of `trial` that differ from those of a record, as far as they enter a key, a line each."""
    before, after = flatten(earlier.config), flatten(canonical(trial.cell.config))
    inputs = trial.keys.inputs
    lines = []
    if earlier.hashes.get("weights") != inputs["weights"]:
        lines.append("content of the backbone's weights file")
    elif inputs["weights"]:
        # The file's content counts, not its path.
        before.pop(WEIGHTS, None)
        after.pop(WEIGHTS, None)
    lines += [
        f"{path}: {before.get(path, ABSENT)} -> {after.get(path, ABSENT)}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
    if earlier.hashes.get("data") != inputs["data"]:
        lines.append(f"data: {str(earlier.hashes.get('data'))[:8]} -> {inputs['data'][:8]}")
    # Records from before 0.2 have no version among their hashes, but say with which they ran.
    versions = earlier.hashes.get("versions", earlier.versions)
    lines += [
        f"version of {name}: {old} -> {version}"
        for name, version in inputs["versions"].items()
        if (old := ".".join(versions.get(name, "unknown").split(".")[:2])) != version
    ]
    # Code that training and evaluation share is named once, as the training code that it is.
    code = {
        file: name
        for kind, name in reversed(CODE.items())
        for file in _changed(earlier.hashes.get(kind, {}), inputs[kind])
    }
    lines += [f"{name}: {file}" for file, name in sorted(code.items())]
    return tuple(lines) or ("what a key is made of",)


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List the files whose hash differs, or that only one of the two has."""
    marks = {(False, True): " (added)", (True, False): " (no longer used)"}
    files = sorted(before.keys() | after.keys())
    changed = [name for name in files if before.get(name) != after.get(name)]
    return [name + marks.get((name in before, name in after), "") for name in changed]

"""What a sweep would run and need, in lines for a person: `dmlcore plan` and the stage's dry run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dmlcore.config.base import canonical
from dmlcore.config.sweep import SweepConfig
from dmlcore.records import TrialRecord, flatten
from dmlcore.sweep.dry_run.forecast import (
    at_a_time,
    disk_estimate,
    folder_bytes,
    trial_memory_bytes,
    trial_seconds,
)
from dmlcore.sweep.execution.limits import over_budget
from dmlcore.sweep.plan import Plan, PlannedTrial
from dmlcore.sweep.progress import duration


def preview(plan: Plan, sweep: SweepConfig, storage: Path) -> Iterator[str]:
    """A line a cell, what changed below a stale one, and the needs of all that is to run.

    Args:
        plan: the sweep against its records.
        sweep: its section of params.yaml.
        storage: the folder of checkpoints and embeddings.
    """
    states = cell_states(plan)
    for trial in plan.trials:
        state = states[trial.key]
        yield f"{state.status:7} {trial.key}  {trial.name}{_remark(state, plan.records.get(trial.key))}"
        yield from (f"          {change}" for change in state.changes)
    counts = Counter(state.status for state in states.values())
    yield f"{len(plan.trials)} cells: " + ", ".join(
        f"{counts[name]} {name}" for name in ("cached", "new", "stale", "failed")
    )
    yield from _searches(plan, sweep)
    if plan.missing:
        yield from _needs(plan, sweep, storage)


def _searches(plan: Plan, sweep: SweepConfig) -> Iterator[str]:
    for search in plan.searches:
        then = f", then the chosen setting at {search.seeds} seeds" if search.to_ask else ""
        yield f"search of [{search.name}]: {search.asked} asked, {search.to_ask} to ask{then}"
    if plan.to_ask:
        yield _search_time(plan, sweep)


def _search_time(plan: Plan, sweep: SweepConfig) -> str:
    """Of the asks and of the chosen settings' further seeds, none of them stopped early."""
    left = [
        (search.to_ask + search.seeds - 1, trial_seconds(search.example, plan.recorded))
        for search in plan.searches
        if search.to_ask
    ]
    seconds = sum(count * each for count, each in left if each is not None)
    if not seconds:
        return "time of the searches: unknown, no trial of these data sets and backbones has finished yet"
    concurrent = at_a_time([search.example for search in plan.searches], sweep.resources)
    return (
        f"time of the searches: about {duration(seconds / concurrent)}, {duration(seconds)} of trials at most"
    )


def _remark(state: CellState, record: TrialRecord | None) -> str:
    if record is not None and not record.done:
        return f": {record.error}"
    return " (trained: evaluated again from its stored embeddings)" if state.trained else ""


def _needs(plan: Plan, sweep: SweepConfig, storage: Path) -> Iterator[str]:
    concurrent = min(len(plan.missing), at_a_time(plan.missing, sweep.resources))
    yield f"to run: {len(plan.missing)} trials, {concurrent} at a time on this machine"
    past = plan.recorded
    yield _time(plan, past, concurrent)
    yield _memory(plan, past, concurrent)
    needs = [disk_estimate(trial) for trial in plan.missing]
    kept, passing = sum(need.kept for need in needs), max(need.passing for need in needs)
    there = f"{size(folder_bytes(storage))} lie in {storage} already"
    yield f"disk: {size(kept)} to keep, {size(concurrent * passing)} more while trials run; {there}"
    if refused := over_budget(plan.missing, storage, sweep.disk_budget_bytes, concurrent):
        yield f"disk budget of {size(sweep.disk_budget_bytes or 0)}: {len(refused)} trials do not fit and will fail"


def _time(plan: Plan, past: list[TrialRecord], concurrent: int) -> str:
    known = [seconds for trial in plan.missing if (seconds := trial_seconds(trial, past)) is not None]
    if not known:
        return "time: unknown, no trial of these data sets and backbones has finished yet"
    left_out = len(plan.missing) - len(known)
    without = f", without {left_out} that are like none that finished" if left_out else ""
    return f"time: about {duration(sum(known) / concurrent)}, {duration(sum(known))} of trials{without}"


def _memory(plan: Plan, past: list[TrialRecord], concurrent: int) -> str:
    known = [memory for trial in plan.missing if (memory := trial_memory_bytes(trial, past)) is not None]
    if not known:
        return "memory: unknown, no trial of these data sets and backbones has finished yet"
    return f"memory: up to {size(max(known))} a trial, {size(concurrent * max(known))} in all"


def size(count: float) -> str:
    """`310 kB`, `12 MB`, `3.4 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 1e3:.0f} kB"


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
    """Trial key -> what the sweep would do with it and why."""
    trained = {trial.key: earlier for trial, earlier in plan.reevaluate}
    return {trial.key: _state(trial, plan, trained.get(trial.key)) for trial in plan.trials}


def _state(trial: PlannedTrial, plan: Plan, trained: TrialRecord | None) -> CellState:
    record = plan.records.get(trial.key)
    if record is not None:
        return CellState("cached" if record.done else "failed")
    same_cell = [earlier for earlier in plan.others if earlier.labels == trial.cell.labels]
    if trained is not None and trained in same_cell:
        same_cell = [trained]
    if not same_cell:
        return CellState("new", trained=trained is not None)
    changes = min((differences(earlier, trial) for earlier in same_cell), key=len)
    return CellState("stale", changes, trained=trained is not None)


def differences(earlier: TrialRecord, trial: PlannedTrial) -> tuple[str, ...]:
    """Which inputs of `trial` differ from those of a record, a line each; what does not enter a key is left out."""
    before, after = flatten(earlier.config), flatten(canonical(trial.cell.config))
    inputs = trial.keys.inputs
    lines = []
    if earlier.hashes.get("weights") != inputs["weights"]:
        lines.append("content of the backbone's weights file")
    elif inputs["weights"]:
        # The file's content counts, not where it lies.
        before, after = _without(before, WEIGHTS), _without(after, WEIGHTS)
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


def _without(config: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != path}


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Files whose hash differs, or that one of the two alone has."""
    both = before.keys() & after.keys()
    changed = {name: "" for name in both if before[name] != after[name]}
    changed |= dict.fromkeys(after.keys() - both, " (added)")
    changed |= dict.fromkeys(before.keys() - both, " (no longer used)")
    return [name + mark for name, mark in sorted(changed.items())]

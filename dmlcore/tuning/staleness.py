"""What a sweep would do with each of its cells, and why a cell that was trained before is not taken as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dmlcore.config import canonical
from dmlcore.records import TrialRecord, flatten
from dmlcore.tuning.plan import Plan, PlannedTrial

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
    for kind, name in CODE.items():
        lines += [f"{name}: {file}" for file in _changed(earlier.hashes.get(kind, {}), inputs[kind])]
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

"""What a sweep would run and need, in lines for a person: `dmlcore plan` and the stage's dry run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dmlcore.config import SweepConfig
from dmlcore.records import TrialRecord
from dmlcore.tuning.forecast import at_a_time, disk_need, folder_bytes, trial_memory_bytes, trial_seconds
from dmlcore.tuning.limits import over_budget
from dmlcore.tuning.plan import Plan
from dmlcore.tuning.progress import duration
from dmlcore.tuning.staleness import CellState, cell_states


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
    needs = [disk_need(trial) for trial in plan.missing]
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

"""A search as a plan: the trials that its logs name, the chosen settings at every seed, and what is still to ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dmlcore.config.sweep import SearchConfig, SweepConfig
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.grid import check_distinct
from dmlcore.sweep.plan import Plan, PlannedTrial, SearchState
from dmlcore.sweep.planning import Planner
from dmlcore.sweep.search.groups import Group, check_groups, search_groups
from dmlcore.sweep.search.log import Ask, SearchLog
from dmlcore.sweep.search.sampling import Records, front
from dmlcore.sweep.search.space import ends
from dmlcore.sweep.validate import check_cells


class GroupPlan:
    """One group's asks as trials.

    Args:
        group: the data set x backbone x loss x variant.
        search: the section of params.yaml.
        planner: gives keys.
        log: of its asks.
    """

    def __init__(self, group: Group, search: SearchConfig, planner: Planner, log: SearchLog) -> None:
        self.group, self.search, self.planner, self.log = group, search, planner, log
        self.asks = log.asks()
        self._first: dict[str, PlannedTrial] = {}
        for ask in self.asks:
            self._add(ask)

    def append(self, ask: Ask) -> None:
        """Log an ask before anything comes of it."""
        self.log.append(ask)
        self.asks.append(ask)
        self._add(ask)

    def _add(self, ask: Ask) -> None:
        if ask.refused is None:
            trial = self.planner(self.group.cell(ask.params, "searched", ask.number))
            self._first.setdefault(trial.key, trial)

    @property
    def to_ask(self) -> int:
        """How many settings are still to try; without a space there is one."""
        return max(0, (self.search.trials if self.group.space else 1) - len(self.asks))

    @property
    def tried(self) -> list[PlannedTrial]:
        """A trial for each distinct setting, in the order of the asks."""
        return list(self._first.values())

    def trials(self, records: Records) -> list[PlannedTrial]:
        """Those tried, each with its role, and once all have ended the chosen setting at the other seeds.

        Args:
            records: trial key -> record, of those that have ended.
        """
        if self.to_ask or any(trial.key not in records for trial in self.tried):
            return self.tried
        best = front(self.group.space, self.search, self.asks, records)
        roles = {ask.trial_key: "front" for ask in best[1:]} | {ask.trial_key: "chosen" for ask in best[:1]}
        shown = [_with_role(trial, roles.get(trial.key, "searched")) for trial in self.tried]
        others = [seed for seed in self.group.seeds if seed != self.group.config.seed]
        cells = [
            self.group.cell(ask.params, "chosen", ask.number, seed) for ask in best[:1] for seed in others
        ]
        return shown + [self.planner(cell) for cell in cells]

    def state(self, trials: Sequence[PlannedTrial]) -> SearchState:
        """What `dmlcore plan` tells of it; `trials` are its own."""
        return SearchState(
            self.group.name,
            asked=len(self.asks),
            to_ask=self.to_ask,
            seeds=len(self.group.seeds),
            chosen=any(trial.cell.labels["role"] == "chosen" for trial in trials),
            example=self.planner(self.group.cell(ends(self.group.space)[0], "searched", 0)),
        )


def _with_role(trial: PlannedTrial, role: str) -> PlannedTrial:
    return replace(trial, cell=replace(trial.cell, labels=trial.cell.labels | {"role": role}))


def group_plans(sweep: SweepConfig, search: SearchConfig, *, study: Path, prepared: Path) -> list[GroupPlan]:
    """The searches of a sweep with what their logs hold.

    Raises:
        ConfigError: a trial at an end of the space cannot be built, two searches look at the same trials.
        RecordError: a log is broken.
    """
    planner = Planner(sweep, study, prepared)
    groups = search_groups(sweep, search)
    check_groups(groups, check_cells, lambda cell: planner(cell).key)
    folder = study / "state" / "search"
    plans = []
    for group in groups:
        identity = group.identity(search, planner.data_hash(group.config.dataset))
        plans.append(GroupPlan(group, search, planner, SearchLog(folder / f"{identity}.jsonl")))
    return plans


def search_plan(sweep: SweepConfig, search: SearchConfig, *, study: Path, prepared: Path) -> Plan:
    """As `make_plan`, of a sweep with a search."""
    folder = RecordFolder(study / "state" / "records")
    plans = group_plans(sweep, search, study=study, prepared=prepared)
    of_each = [plan.trials(settled(plan.tried, folder)) for plan in plans]
    trials = [trial for found in of_each for trial in found]
    check_distinct([trial.key for trial in trials], [trial.cell for trial in trials])
    states = [plan.state(found) for plan, found in zip(plans, of_each, strict=True)]
    return Plan(trials, searches=states)


def settled(trials: Sequence[PlannedTrial], folder: RecordFolder) -> dict[str, TrialRecord]:
    """The records of those trials that have ended: finished, failed, or stopped where that is allowed."""
    found = {trial.key: folder.read_or_set_aside(trial.key) for trial in trials}
    return {
        trial.key: record
        for trial in trials
        if (record := found[trial.key]) is not None and (trial.is_complete(record) or not record.done)
    }

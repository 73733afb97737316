"""The plan of a search: the trials that its logs name, the chosen settings at every seed, and what is still to try."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dmlcore.config.base import ConfigError
from dmlcore.config.search import OBJECTIVES, SearchConfig
from dmlcore.config.sweep import SweepConfig
from dmlcore.records import RecordFolder
from dmlcore.sweep.grid import Cell, as_longer, check_distinct
from dmlcore.sweep.margin_rates import rates_of
from dmlcore.sweep.plan import Plan, PlannedTrial, Planner, SearchState, WaitingTrial, ended_records
from dmlcore.sweep.score_margins import Resolver, stand_in, with_margins, with_source
from dmlcore.sweep.search.groups import Group, check_groups, corners, search_groups
from dmlcore.sweep.search.log import SearchLog, Suggestion
from dmlcore.sweep.search.sampling import Choice, Records, choose, pareto_front
from dmlcore.sweep.validate import check_cells


class GroupPlan:
    """The suggestions of one group as trials.

    Args:
        group: the data set x backbone x loss x variant.
        search: the section of params.yaml.
        planner: gives keys and paths.
        log: of the suggestions.
    """

    def __init__(self, group: Group, search: SearchConfig, planner: Planner, log: SearchLog) -> None:
        self.group, self.search, self.planner, self.log = group, search, planner, log
        self.baseline: GroupPlan | None = None
        """The search without regularisers beside this one; None: this is it, or there is none."""
        self.longer: float | None = None
        """Train the chosen setting this many times as long, too."""
        self.suggestions = log.suggestions()
        self._tried: dict[str, PlannedTrial] = {}
        for suggestion in self.suggestions:
            self._add(suggestion)

    def append(self, suggestion: Suggestion) -> None:
        """Log a suggestion, before its trial may start."""
        self.log.append(suggestion)
        self.suggestions.append(suggestion)
        self._add(suggestion)

    def _add(self, suggestion: Suggestion) -> None:
        if suggestion.refused is None:
            cell = self.group.cell(suggestion.params, "searched", suggestion.number)
            if rates := rates_of(cell):
                # As logged: the baseline that gave them may not be the chosen one any more, if `trials` was raised.
                cell = with_margins(cell, {rate: suggestion.margins[rate.path] for rate in rates})
            trial = self.planner(cell)
            trial = with_source(trial, suggestion.scores) if suggestion.scores else trial
            self._tried.setdefault(trial.key, trial)

    @property
    def remaining_trials(self) -> int:
        """Return how many settings are still to try; without a space there is one in all."""
        return max(0, (self.search.trials if self.group.space else 1) - len(self.suggestions))

    @property
    def tried(self) -> list[PlannedTrial]:
        """Return a trial for each distinct setting, in the order of the suggestions."""
        return list(self._tried.values())

    def has_ended(self, records: Records) -> bool:
        """Return whether all settings were suggested and tried."""
        return not self.remaining_trials and all(trial.key in records for trial in self.tried)

    def waits(self, records: Records) -> bool:
        """Return whether only the baseline's accuracy is missing for the choice."""
        needed = self.baseline if self.search.choose == "no_accuracy_loss" else None
        return needed is not None and self.has_ended(records) and not needed.has_ended(records)

    def trials(self, records: Records) -> list[PlannedTrial]:
        """Return the trials tried and, once all have ended, the chosen setting at the other seeds.

        Args:
            records: of the trials that have ended, those of the baseline among them.
        """
        if not self.has_ended(records) or self.waits(records):
            return self.tried
        chosen = [found for found in self._chosen(records) if isinstance(found, PlannedTrial)]
        return self._labelled(records) + chosen

    def waiting(self, records: Records) -> list[WaitingTrial]:
        """Return the chosen setting at the seeds at which the baseline that gives its margins has not finished."""
        if not rates_of(self._example) or not self.has_ended(records) or self.waits(records):
            return []
        return [found for found in self._chosen(records) if isinstance(found, WaitingTrial)]

    def _labelled(self, records: Records) -> list[PlannedTrial]:
        """Return the trials tried with their roles."""
        front, rule = self._choice(records)
        roles = {best.trial_key: "front" for best in front[1:]} | {
            best.trial_key: "chosen" for best in front[:1]
        }
        notes = {"tried": len(self.tried), "choice": rule}
        return [_with_role(trial, roles.get(trial.key, "searched"), notes) for trial in self.tried]

    def _chosen(self, records: Records) -> list[PlannedTrial | WaitingTrial]:
        """Return the chosen setting at the other seeds, and its longer run."""
        front, rule = self._choice(records)
        notes = {"tried": len(self.tried), "choice": rule}
        cells = [
            self.group.cell(best.params, "chosen", best.number, seed)
            for best in front[:1]
            for seed in self.group.seeds
            if seed != self.group.config.seed
        ]
        cells = [replace(cell, notes=cell.notes | notes) for cell in cells]
        return [self.resolved(cell, records) for cell in (*cells, *self._longer(front, cells))]

    def resolved(self, cell: Cell, records: Records) -> PlannedTrial | WaitingTrial:
        """Plan a cell; one with rates takes its margins from the baseline's chosen setting at the same seed."""
        if not rates_of(cell):
            return self.planner(cell)
        base = self.baseline.chosen_at(cell.seed, records) if self.baseline else None
        if base is None:
            return WaitingTrial(cell, "waits for the setting that the search without regularisers chooses")
        return Resolver(self.planner, records)(cell, base)

    def chosen_at(self, seed: int, records: Records) -> PlannedTrial | None:
        """Return the trial of the chosen setting at a seed; None while none is chosen."""
        found = (trial for trial in self.trials(records) if trial.cell.labels["role"] == "chosen")
        return next((trial for trial in found if trial.cell.seed == seed), None)

    def awaits_scores(self, records: Records) -> bool:
        """Return whether no setting can be suggested, since the baseline whose scores it needs is not chosen."""
        if self.baseline is None or not rates_of(self._example):
            return False
        return self.baseline.chosen_at(self.group.config.seed, records) is None

    def check_base(self) -> None:
        """Refuse margins from the scores of a search that there is not.

        Raises:
            ConfigError: no grid has the variant without regularisers.
        """
        if self.baseline is None and rates_of(self._example):
            raise ConfigError(
                f"search of [{self.group.name}]: its margins come from the scores of the search without regularisers, "
                "which is in no grid: add [] to `regularizers`, or give the margins as numbers"
            )

    @property
    def _example(self) -> Cell:
        return self.group.cell(corners(self.group.space)[0], "searched", 0)

    def _longer(self, front: list[Suggestion], cells: list[Cell]) -> list[Cell]:
        """Return the chosen setting as a trial that trains longer, at the first seed that is compared."""
        if self.longer is None or not front:
            return []
        own = self.group.cell(front[0].params, "chosen", front[0].number)
        return [as_longer(cells[0] if cells else own, self.longer)]

    def _choice(self, records: Records) -> Choice:
        baseline = self.baseline if self.group.config.regularizers else self
        best = baseline.best_accuracy(records) if baseline else None
        return choose(self._front(records), self.search, records, best)

    def _front(self, records: Records) -> list[Suggestion]:
        return pareto_front(self.group.space, self.search, self.suggestions, records)

    def best_accuracy(self, records: Records) -> float | None:
        """Return the best value of the objective to maximise; None where no setting or no objective has one."""
        up = next((metric for metric in self.search.objectives if OBJECTIVES[metric] == "maximize"), "")
        values = [records[s.trial_key or ""].metrics.get(up) for s in self._front(records)]
        return max((value for value in values if value is not None), default=None)

    def state(self, trials: Iterable[PlannedTrial], records: Records) -> SearchState:
        """Return how far the search has come; `trials` are its own."""
        return SearchState(
            self.group.name,
            suggested=len(self.suggestions),
            remaining=self.remaining_trials,
            seeds=len(self.group.seeds),
            chosen=any(trial.cell.labels["role"] == "chosen" for trial in trials),
            waits=self.waits(records),
            example=self.planner(stand_in(self._example)),
        )


def _with_role(trial: PlannedTrial, role: str, notes: Mapping[str, Any]) -> PlannedTrial:
    """Label a trial; the notes are of the chosen one alone."""
    cell = replace(trial.cell, labels=trial.cell.labels | {"role": role})
    return replace(trial, cell=replace(cell, notes={**cell.notes, **notes}) if role == "chosen" else cell)


def group_plans(sweep: SweepConfig, search: SearchConfig, *, study: Path, prepared: Path) -> list[GroupPlan]:
    """Return the searches of a sweep with what their logs hold.

    Raises:
        ConfigError: a trial at a corner of the space cannot be built, or two searches try the same trials.
        RecordError: a log is damaged.
    """
    planner = Planner(sweep, study, prepared)
    groups = search_groups(sweep, search)
    check_groups(groups, check_cells, lambda cell: planner(cell).key)
    plans = []
    for group in groups:
        identity = group.identity(search, planner.data_hash(group.config.dataset))
        log = SearchLog(study / "state" / "search" / f"{identity}.jsonl")
        plans.append(GroupPlan(group, search, planner, log))
    _join_baselines(plans)
    if sweep.longer_run is not None:
        first: dict[tuple[str, str], GroupPlan] = {}
        for plan in sorted(plans, key=lambda plan: bool(plan.group.config.regularizers)):
            first.setdefault((plan.group.labels["dataset"], plan.group.labels["backbone"]), plan)
        for plan in first.values():
            plan.longer = sweep.longer_run.factor
    return plans


def _join_baselines(plans: list[GroupPlan]) -> None:
    """Tell each search which one is the same but for its regularisers."""
    alone = {repr(plan.group.config): plan for plan in plans if not plan.group.config.regularizers}
    for plan in plans:
        if plan.group.config.regularizers:
            base = plan.group.config.model_copy(update={"regularizers": ()})
            plan.baseline = alone.get(repr(base))
            plan.check_base()


def search_plan(sweep: SweepConfig, search: SearchConfig, *, study: Path, prepared: Path) -> Plan:
    """Plan a sweep with a search, as `make_plan`, without looking up its records."""
    recorded = RecordFolder(study / "state" / "records").read_all()[0]
    plans = group_plans(sweep, search, study=study, prepared=prepared)
    records = ended_records([trial for plan in plans for trial in plan.tried], recorded.get)
    for plan in plans:
        if plan.baseline is None:  # its chosen trials give others their margins
            records |= ended_records(plan.trials(records), recorded.get)
    trials_of = [plan.trials(records) for plan in plans]
    trials = [trial for found in trials_of for trial in found]
    check_distinct([trial.key for trial in trials], [trial.cell for trial in trials])
    states = [plan.state(found, records) for plan, found in zip(plans, trials_of, strict=True)]
    waiting = [found for plan in plans for found in plan.waiting(records)]
    return Plan(trials, waiting, searches=states)

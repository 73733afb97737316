"""The run of a search: which trial comes next, and what the ended ones mean for it. Knows no Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dmlcore.config.base import ConfigError
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.execution.guards import pop_kill_reason
from dmlcore.sweep.execution.outcomes import record_lost, reevaluate
from dmlcore.sweep.execution.worker import WorkerContext, make_record
from dmlcore.sweep.grid import Cell, rank
from dmlcore.sweep.margin_rates import rates_of
from dmlcore.sweep.plan import PlannedTrial, WaitingTrial, ended_records
from dmlcore.sweep.score_margins import SOURCE, stand_in
from dmlcore.sweep.search.log import Suggestion
from dmlcore.sweep.search.plan import GroupPlan
from dmlcore.sweep.search.sampling import next_setting
from dmlcore.sweep.validate import check_cells
from dmlcore.tracking.base import Tracker
from dmlcore.training.store import TrialStore


class GroupSearch:
    """The trials of one group in their order.

    First those that a killed run left, then new suggestions, then the chosen setting at the other seeds. A trial is in
    one of three states, told by two attributes:

        waiting   not in `started`, and without a record in `records` that completes it
        running   in `started`, not in `records`
        ended     in `records`; a failed trial of an earlier run is still waiting, one of this run is not tried again

    `next_trial` moves a trial from waiting to running, `record_result` from running to ended.
    """

    def __init__(self, plan: GroupPlan, folder: RecordFolder) -> None:
        self.plan, self.folder = plan, folder
        self.baseline: GroupSearch | None = None
        """The search without regularisers beside this one, whose accuracy the choice may need."""
        self.started: set[str] = set()
        self.records: dict[str, TrialRecord] = {}
        self.trials: list[PlannedTrial] = []
        self._update()

    def _update(self) -> None:
        """Derive `trials` again, since a suggestion or a result was added; look up records of trials new to it."""
        self._look_up(self.plan.tried)
        self.trials = self.plan.trials(self._all_records)
        self._look_up(self.trials)

    @property
    def _all_records(self) -> dict[str, TrialRecord]:
        return self.records if self.baseline is None else self.baseline.records | self.records

    def _look_up(self, trials: Iterable[PlannedTrial]) -> None:
        # Not those started: the file may hold the failure of an earlier run, which the trial that runs replaces.
        known = self.started | self.records.keys()
        new = [trial for trial in trials if trial.key not in known]
        self.records |= ended_records(new, self.folder.read_or_set_aside)

    def next_trial(self) -> PlannedTrial | None:
        """Start the next trial; None: nothing to start until a running trial has ended."""
        if self.baseline is not None:
            self._update()  # its last result may be what the choice has waited for
        while not (waiting := self._waiting(self.trials)) and self.plan.remaining_trials:
            if self.plan.awaits_scores(self._all_records):
                return None
            self._suggest()
        if not waiting:
            return None
        self.started.add(waiting[0].key)
        if self.records.pop(waiting[0].key, None) is not None:
            self._update()  # the setting that failed before may yet be the one to choose
        return waiting[0]

    def record_result(self, trial: PlannedTrial) -> None:
        """Take in the record of a started trial that has ended; without a record its process died."""
        record = self.folder.read_or_set_aside(trial.key)
        self.records[trial.key] = record or make_record(trial, status="failed", error="process died")
        self._update()

    def _suggest(self) -> None:
        """Log the next setting; one whose trial is recorded already is not run again, its record is the result."""
        plan, number = self.plan, len(self.plan.suggestions)
        params, attributes = next_setting(plan.group.space, plan.search, plan.suggestions, self.records)
        outcome: dict[str, Any] = {}
        try:
            cell = plan.group.cell(params, "searched", number)
            check_cells([stand_in(cell)])  # values may each be valid and contradict each other
            found = plan.resolved(cell, self._all_records)
        except ConfigError as error:
            outcome = {"refused": str(error)}
        else:
            if isinstance(found, WaitingTrial):
                outcome = {"refused": found.reason}
            else:
                outcome = {"trial_key": found.key, **_margins(cell, found)}
        plan.append(Suggestion(number=number, params=params, attributes=attributes, **outcome))
        self._update()

    @property
    def is_running(self) -> bool:
        return bool(self.started - self.records.keys())

    @property
    def suggestions_used(self) -> int:
        """Return how many suggestions have a result or run: those that a killed run left do not count."""
        return len(self.plan.suggestions) - len(self._waiting(self.plan.tried))

    @property
    def remaining(self) -> int:
        """Return how many trials are still to end; it may be fewer, since settings repeat."""
        unfinished = [trial for trial in self.trials if not self._is_complete(trial)]
        choosing = (
            self.plan.remaining_trials
            or any(not self._is_complete(trial) for trial in self.plan.tried)
            or self.plan.waits(self._all_records)
        )
        other_seeds = len(self.plan.group.seeds) - 1 + (self.plan.longer is not None) if choosing else 0
        return len(unfinished) + self.plan.remaining_trials + other_seeds

    def _waiting(self, trials: Iterable[PlannedTrial]) -> list[PlannedTrial]:
        return [t for t in trials if t.key not in self.started and not self._is_complete(t)]

    def _is_complete(self, trial: PlannedTrial) -> bool:
        return trial.key in self.records and trial.is_complete(self.records[trial.key])


def _margins(cell: Cell, trial: PlannedTrial) -> dict[str, Any]:
    """Return what the log keeps of margins that came from scores: `cell` has the rates, `trial` the numbers."""
    parts = trial.cell.config.regularizers
    margins = {rate.path: parts[rate.place].params[rate.parameter] for rate in rates_of(cell)}
    return {"margins": margins, "scores": trial.keys.inputs[SOURCE]} if margins else {}


class SearchRun:
    """All groups of a study at once.

    Args:
        plans: of the groups.
        recorded: every record of the study: a trial trained before is evaluated again, not trained.
        context: of the workers.
        tracker: is told of trials that need not run or must not.
        over_budget: trial key -> why it must not start, of the trials whose files would not fit.
        priority: labels of the searches whose trials come first.
    """

    def __init__(
        self,
        plans: Sequence[GroupPlan],
        recorded: Iterable[TrialRecord],
        context: WorkerContext,
        tracker: Tracker,
        over_budget: Callable[[list[PlannedTrial]], dict[str, str]],
        priority: Sequence[Mapping[Any, str]] = (),
    ) -> None:
        self.groups = [GroupSearch(plan, RecordFolder(context.records)) for plan in plans]
        group_of = {id(group.plan): group for group in self.groups}
        for group in self.groups:
            group.baseline = group_of.get(id(group.plan.baseline))
        self.priority = priority
        self.context, self.tracker, self.over_budget = context, tracker, over_budget
        self.started: list[PlannedTrial] = []
        self._trained = {record.train_key: record for record in recorded if record.status == "finished"}
        self._group_of: dict[str, GroupSearch] = {}

    def next_trial(self) -> PlannedTrial | None:
        """Return the next trial to run; None: nothing until a running trial has ended."""
        # The group with the fewest results first, so that each suggestion can learn from as much as possible.
        for group in sorted(self.groups, key=lambda group: (self._rank(group), group.suggestions_used)):
            while (trial := group.next_trial()) is not None:
                if self._must_run(trial):
                    self._group_of[trial.key] = group
                    self.started.append(trial)
                    return trial
                group.record_result(trial)
        return None

    def _rank(self, group: GroupSearch) -> int:
        return rank(self.priority, group.plan.group.labels)

    def record_result(self, trial: PlannedTrial) -> None:
        """Take in the record of a trial from `next_trial` that has ended."""
        self._group_of.pop(trial.key).record_result(trial)

    @property
    def finished(self) -> bool:
        """Whether nothing runs: if `next_trial` has returned None, the search is at its end."""
        return not any(group.is_running for group in self.groups)

    @property
    def remaining(self) -> int:
        """Return how many trials are still to end; it may be fewer, since settings repeat."""
        return sum(group.remaining for group in self.groups)

    def _must_run(self, trial: PlannedTrial) -> bool:
        """Return whether a trial must run; else write its record: evaluated again, or over the disk budget."""
        earlier = self._trained.get(trial.keys.train)
        if earlier is not None and TrialStore(trial.store_folder).matches(earlier.files):
            reevaluate(trial, earlier, self.context, self.tracker)
            return False
        pop_kill_reason(self.context.kill_reason_file(trial.key))  # of an earlier run of the stage
        reasons = self.over_budget([trial])
        record_lost([trial], reasons, self.context, self.tracker)
        return not reasons

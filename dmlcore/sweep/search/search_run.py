"""The course of a search: which trial comes next, and what came of it. Knows no Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dmlcore.config.base import ConfigError
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.execution.limits import pop_kill_reason
from dmlcore.sweep.execution.outcomes import record_lost, reevaluate
from dmlcore.sweep.execution.worker import WorkerContext, make_record
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.search.log import Ask
from dmlcore.sweep.search.plan import GroupPlan, settled
from dmlcore.sweep.search.sampling import next_setting
from dmlcore.sweep.validate import check_cells
from dmlcore.tracking.base import Tracker
from dmlcore.training.store import TrialStore


class GroupCourse:
    """The trials of one group in their order: those a killed run left, new asks, then the chosen setting's seeds.

    A trial that failed is tried once in each run of the stage. A setting whose trial is recorded is not run again: its
    record answers, and the next setting is asked for.
    """

    def __init__(self, plan: GroupPlan, records: RecordFolder) -> None:
        self.plan, self.folder = plan, records
        self.records = settled(plan.tried, records)
        self.started: set[str] = set()
        self.running: set[str] = set()
        self._trials: list[PlannedTrial] | None = None

    def next(self) -> PlannedTrial | None:
        """What to run next; None: nothing, until a running trial has ended."""
        while True:
            for trial in self._current():
                if trial.key not in self.started and not self._settled(trial):
                    self.started.add(trial.key)
                    self.running.add(trial.key)
                    return trial
            if not self.plan.to_ask:
                return None
            self._ask()

    @property
    def tried(self) -> int:
        """How many asks have been answered or are being run: those that a killed run left are not."""
        left = [t for t in self.plan.tried if t.key not in self.started and not self._settled(t)]
        return len(self.plan.asks) - len(left)

    @property
    def left(self) -> int:
        """How many trials are still to come; fewer where settings repeat."""
        waiting = sum(not self._settled(trial) for trial in self._current())
        searching = self.plan.to_ask or any(not self._settled(trial) for trial in self.plan.tried)
        return waiting + self.plan.to_ask + (len(self.plan.group.seeds) - 1 if searching else 0)

    def tell(self, trial: PlannedTrial) -> None:
        """A trial that `next` gave has ended; its record says how, and without one its process died."""
        record = self.folder.read_or_set_aside(trial.key)
        self.records[trial.key] = record or make_record(trial, status="failed", error="process died")
        self.running.discard(trial.key)
        self._trials = None

    def _current(self) -> list[PlannedTrial]:
        if self._trials is None:
            self._trials = self.plan.trials(self._ended)
            self._look_up(self._trials)
        return self._trials

    @property
    def _ended(self) -> dict[str, TrialRecord]:
        """Without the records of failed trials that run again."""
        return {key: record for key, record in self.records.items() if key not in self.running}

    def _look_up(self, trials: Sequence[PlannedTrial]) -> None:
        """Records that were there before this search came to their trials."""
        self.records |= settled([trial for trial in trials if trial.key not in self.records], self.folder)

    def _settled(self, trial: PlannedTrial) -> bool:
        return trial.key in self.records and trial.is_complete(self.records[trial.key])

    def _ask(self) -> None:
        plan, number = self.plan, len(self.plan.asks)
        params, noted = next_setting(plan.group.space, plan.search, plan.asks, self._ended)
        try:
            cell = plan.group.cell(params, "searched", number)
            check_cells([cell])
        except ConfigError as error:
            plan.append(Ask(number=number, params=params, refused=str(error), attributes=noted))
        else:
            key = plan.planner(cell).key
            plan.append(Ask(number=number, params=params, trial_key=key, attributes=noted))
        self._look_up(plan.tried)
        self._trials = None


class Search:
    """All groups side by side, the one that has tried least first, so that each learns from as much as it can.

    Args:
        groups: their courses.
        admit: whether a trial may be handed out; where it says no, it has left the trial's record.
    """

    def __init__(self, groups: Sequence[GroupCourse], admit: Callable[[PlannedTrial], bool]) -> None:
        self.groups, self.admit = groups, admit
        self.given: list[PlannedTrial] = []
        self._of: dict[str, GroupCourse] = {}

    @property
    def finished(self) -> bool:
        """Nothing runs; asked after `next` has given None, nothing is left to run either."""
        return not any(group.running for group in self.groups)

    def next(self) -> PlannedTrial | None:
        """What to run next; None: nothing, until a running trial has ended."""
        for group in sorted(self.groups, key=lambda group: group.tried):
            while (trial := group.next()) is not None:
                if self.admit(trial):
                    self._of[trial.key] = group
                    self.given.append(trial)
                    return trial
                group.tell(trial)
        return None

    def tell(self, trial: PlannedTrial) -> None:
        """A trial that `next` gave has ended."""
        self._of.pop(trial.key).tell(trial)

    def left(self) -> int:
        """How many trials are still to come; fewer where settings repeat."""
        return sum(group.left for group in self.groups)


def open_search_run(
    plans: Sequence[GroupPlan],
    recorded: Iterable[TrialRecord],
    place: WorkerContext,
    tracker: Tracker,
    over_budget: Callable[[list[PlannedTrial]], dict[str, str]],
) -> Search:
    """The search of a study, as far as it has come.

    Args:
        plans: its groups.
        recorded: every record of the study: what was trained before is evaluated, not trained again.
        place: the workers'.
        tracker: told of trials that need not run or must not.
        over_budget: trial key -> why it must not start, of the trials whose files would not fit.
    """
    trained = {record.train_key: record for record in recorded if record.status == "finished"}

    def admit(trial: PlannedTrial) -> bool:
        earlier = trained.get(trial.keys.train)
        if earlier is not None and TrialStore(trial.store_folder).matches(earlier.files):
            reevaluate(trial, earlier, place, tracker)
            return False
        pop_kill_reason(place.kill_reason_file(trial.key))  # of an earlier run of the stage
        reasons = over_budget([trial])
        record_lost([trial], reasons, place, tracker)
        return not reasons

    return Search([GroupCourse(plan, RecordFolder(place.records)) for plan in plans], admit)

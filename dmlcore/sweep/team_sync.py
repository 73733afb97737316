"""A sweep and the store of its team: records are taken before trials run, and left there while others do.

The driver's side. A store that does not answer never ends a sweep: that is said once, and what could not be left is
left by the next run of the stage, or by `dmlcore records push`.
"""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from dmlcore.records import RecordError, RecordFolder, TrialRecord
from dmlcore.sweep.plan import CANCELLED, Plan, PlannedTrial
from dmlcore.sweep.progress import host_of
from dmlcore.sweep.team_store import StoreError, TeamStore, is_among
from dmlcore.training.store import TrialStore

LOOK_SECONDS = 2.0
"""Between two looks for records of trials that have ended."""
RETRY_SECONDS = 60.0
"""Between two tries of a store that did not answer."""
AT_ONCE = 8


class TeamSync:
    """The records of a study and the store of its team.

    Args:
        team: the store; None: nothing is taken and nothing left.
        records: of the study.
        storage: the study's folder of checkpoints and embeddings.
        say: prints a line.
    """

    def __init__(
        self, team: TeamStore | None, records: RecordFolder, storage: Path, say: Callable[[str], None] = print
    ) -> None:
        self.team, self.records, self.storage, self.say = team, records, storage, say
        self.taken: list[TrialRecord] = []
        self.left: list[str] = []
        """Keys of the trials that were left there."""
        self.broken: list[str] = []
        """Keys of trials whose record there is damaged or another's."""
        self.fault: str | None = None
        """Why the store did not answer when it was asked last."""
        self._there: set[str] = set()
        self._first: dict[str, TrialRecord] = {}
        """Key -> record of who was first with a trial that ran here too."""
        self._seen: dict[str, int] = {}
        """Key -> time of the record's file when it was looked at last."""
        self._ended = threading.Event()

    def taking(self, make_plan: Callable[[], Plan]) -> Plan:
        """Return the plan once all that the store has of it is taken.

        Args:
            make_plan: plans the sweep. It is planned anew after each round: trials may wait for the scores of others.
        """
        plan = make_plan()
        while self.team is not None and self.fault is None and self.take(plan.missing):
            plan = make_plan()
        return plan

    def take(self, trials: Iterable[PlannedTrial]) -> list[TrialRecord]:
        """Write the records that the store has of `trials`, and return them."""
        assert self.team is not None
        taken = []
        try:
            self._there = self.team.names()
            offered = [t for t in trials if is_among(self._there, t) and t.key not in self.broken]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for trial, record in zip(offered, pool.map(self._fetched, offered), strict=True):
                    if record is not None and trial.is_complete(record):
                        self.records.write(record)
                        taken.append(record)
        except StoreError as error:
            self._unreachable(error)
        self.taken += taken
        if taken:
            self.say(f"sweep: {self.team} has {len(taken)} trials, which are not run again: {ran_on(taken)}")
        return taken

    def _fetched(self, trial: PlannedTrial) -> TrialRecord | None:
        assert self.team is not None
        try:
            return self.team.fetch(trial)
        except (RecordError, OSError) as error:
            self.broken.append(trial.key)
            self.say(f"sweep: the record of {trial.key} at {self.team} {error}; the trial runs")
            return None

    def fetch_files(self, plan: Plan) -> list[str]:
        """Fetch the files of recorded trials that are not here, if they are shared; return a line for each failure."""
        if self.team is None or not self.team.files:
            return []
        lines = []
        for trial in plan.trials:
            record = plan.records.get(trial.key)
            if record is None or record.status != "finished":
                continue
            try:
                if not self.team.fetch_files(record, trial.store_folder, list(record.files)):
                    lines.append(f"{trial.key} {trial.name}: {self.team} does not have all its files")
            except (RecordError, StoreError, OSError) as error:
                lines.append(f"{trial.key} {trial.name}: no files from {self.team}: {error}")
        return lines

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Leave each record in the store as its trial ends, from another thread; at the end wait until all are there.

        If the block is interrupted, what is not there yet waits for the next run.
        """
        if self.team is None:
            yield
            return
        thread = threading.Thread(target=self._keep_leaving, daemon=True, name="records")
        thread.start()
        try:
            yield
        except BaseException:
            self._ended.set()
            raise
        self._ended.set()
        thread.join()
        self.leave_all()

    def _keep_leaving(self) -> None:
        failed = -RETRY_SECONDS
        while not self._ended.wait(LOOK_SECONDS):
            if time.monotonic() - failed >= RETRY_SECONDS and not self._leave_new():
                failed = time.monotonic()

    def leave_all(self) -> int:
        """Leave what the store lacks, take over the records of who was first, and return how many are not there."""
        assert self.team is not None
        if self._leave_new():
            self._take_over()
        waiting = [key for key in self._new() if self._to_leave(key) is not None]
        if self.left:
            self.say(f"sweep: {len(self.left)} trials were left at {self.team}")
        if waiting:
            later = "the next run or `dmlcore records push` does it"
            self.say(f"sweep: {len(waiting)} trials could not be left at {self.team} ({self.fault}); {later}")
        return len(waiting)

    def _leave_new(self) -> bool:
        """Leave the records that are new here; return whether the store answered."""
        assert self.team is not None
        try:
            for key in self._new():
                changed = self._time(key)
                if (record := self._to_leave(key)) is not None:
                    folder = self.storage / record.train_key[:16]
                    now = self.team.leave(record, folder, replace=key in self.broken)
                    self._there |= self.team.names_of(record)
                    if now is record:
                        self.left.append(key)
                    else:
                        self._first[key] = now
                self._seen[key] = changed
        except (StoreError, RecordError, OSError) as error:
            self._unreachable(error)
            return False
        self.fault = None
        return True

    def _new(self) -> list[str]:
        """Return the keys of the records that were not looked at since they were written."""
        keys = self.records.keys()
        return [key for key in keys if self._seen.get(key) != self._time(key)]

    def _time(self, key: str) -> int:
        with suppress(OSError):
            return self.records.path(key).stat().st_mtime_ns
        return 0

    def _to_leave(self, key: str) -> TrialRecord | None:
        """Return the record of a trial that has ended well; None if there is none, or the store has it."""
        assert self.team is not None
        with suppress(RecordError):
            record = self.records.read(key)
            if record is not None and record.done and record.error_type != CANCELLED:
                has = key not in self.broken and self.team.names_of(record) <= self._there
                return None if has else record
        return None

    def _take_over(self) -> None:
        """Put the record of who was first in place of the own one, so that all have the same numbers.

        Where its files are others, bit for bit, and cannot be had, the own one stays: it vouches for the files here.
        """
        assert self.team is not None
        for key, first in self._first.items():
            own = self.records.read(key)
            if own is None or first.status != "finished":
                continue
            theirs, folder = (
                first.model_copy(update={"labels": own.labels}),
                self.storage / own.train_key[:16],
            )
            with suppress(StoreError, RecordError, OSError):
                if theirs != own and (
                    TrialStore(folder).matches(first.files)
                    or (self.team.files and self.team.fetch_files(first, folder, list(first.files)))
                ):
                    self.records.write(theirs)
                    self._seen[key] = self._time(key)
                    self.say(
                        f"sweep: {own.name} ran on {host_of(first)} too, which was first: its record stays"
                    )
        self._first.clear()

    def _unreachable(self, error: Exception) -> None:
        if self.fault is None:
            self.say(f"sweep: {self.team} does not answer ({error}); trials go on without it")
        self.fault = str(error)


def ran_on(records: Iterable[TrialRecord]) -> str:
    """Return how many trials ran on which machine, as `8 ran on gpu1, 4 on gpu2`."""
    counts = Counter(host_of(record) for record in records).most_common()
    return ", ".join(f"{count} {'ran ' * (not place)}on {host}" for place, (host, count) in enumerate(counts))


def shared_lines(team: TeamStore | None, plan: Plan) -> Iterator[str]:
    """Yield what `dmlcore plan` says of the store: how many of the trials it has, and where those recorded here ran."""
    if team is None:
        return
    try:
        names = team.names()
    except StoreError as error:
        yield f"{team} does not answer: {error}"
        return
    counts = [sum(is_among(names, trial) for trial in trials) for trials in (plan.trials, plan.missing)]
    yield f"{team}: has {counts[0]} of {len(plan.trials)} trials, {counts[1]} of the {len(plan.missing)} to run"
    elsewhere = [record for record in plan.records.values() if host_of(record) != platform.node()]
    if elsewhere:
        yield f"recorded here: {ran_on(elsewhere)}"

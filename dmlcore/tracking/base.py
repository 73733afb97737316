"""The tracker of a sweep. The driver alone calls it: workers only report, and import none of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

from dmlcore.records import TrialRecord


class Tracker:
    """Shows trials as they run. This one shows nothing (`tracker: none`); the others override its methods.

    The sweep waits for every call, and a call that raises would end it: a tracker that writes to a store warns instead
    of raising, and runs in the background where the store may be slow. What it missed can always be delivered from the
    trial records.
    """

    @classmethod
    def for_study(cls, study: str, state: Path, repository: Path | None) -> Self:
        """Make the tracker of a study.

        Args:
            study: its name.
            state: its state folder.
            repository: the checkout whose commit is noted with each trial; None: no commit.
        """
        return cls()

    def running(self, state: Path) -> AbstractContextManager[Tracker]:
        """Return the context in which a sweep with this state folder calls the tracker; it ends when all is written."""
        return nullcontext(self)

    def prepare(self) -> None:
        """Make the store ready, before the first trial starts."""

    def start(self, trial_key: str, name: str, labels: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Show that a trial starts, perhaps after an earlier attempt."""

    def epoch(self, trial_key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Show the metrics of an epoch; a resumed trial reports its earlier epochs again."""

    def finish(self, record: TrialRecord, name: str) -> None:
        """Show how a trial ended."""

    def describe(self, text: str) -> None:
        """Show with the study what it found; `text` is Markdown. Makes no store where there is none."""

    def sync(self, records: Iterable[TrialRecord]) -> int:
        """Bring the store up to all records of the study; return how many trials it was behind."""
        return 0

    def log_models(self, records: Iterable[TrialRecord], study: Path, prepared: Path) -> list[str]:
        """Log the best model of each data set, after the sweep; return the names of the trials logged now.

        Args:
            records: of the study's trials.
            study: its folder, absolute.
            prepared: the folder of prepared data sets.
        """
        return []

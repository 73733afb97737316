"""Where the course of trials is shown. The driver alone calls it: workers only report, and import none of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from dmlcore.records import TrialRecord


class Tracker(Protocol):
    """Shows trials as they run; `pipeline` hands the sweep one of dmlcore.tracking. The sweep waits for each call: what
    takes long is done elsewhere (`dmlcore.tracking.BackgroundTracker`).
    """

    def prepare(self) -> None: ...

    def start(
        self, trial_key: str, name: str, labels: Mapping[str, Any], config: Mapping[str, Any]
    ) -> None: ...

    def epoch(self, trial_key: str, epoch: int, metrics: Mapping[str, float]) -> None: ...

    def finish(self, record: TrialRecord, name: str) -> None: ...

    def sync(self, records: Iterable[TrialRecord]) -> int: ...

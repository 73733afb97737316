"""Where the course of trials is shown. The driver alone calls it: workers only report, and import none of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol

from dmlcore.records import TrialRecord

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Shows trials as they run; `pipeline` hands the sweep one of dmlcore.tracking."""

    def prepare(self) -> None: ...

    def start(
        self, trial_key: str, name: str, labels: Mapping[str, Any], config: Mapping[str, Any]
    ) -> None: ...

    def epoch(self, trial_key: str, epoch: int, metrics: Mapping[str, float]) -> None: ...

    def finish(self, record: TrialRecord, name: str) -> None: ...

    def sync(self, records: Iterable[TrialRecord]) -> int: ...

    def settle(self) -> None:
        """Wait until all that was told is shown."""


class TrackerThread:
    """Makes the calls of another tracker in a thread, one after the other: nothing waits for it, a store that answers
    slowly or not at all holds up neither the sweep nor a trial.

    Used as a context: its end waits until all calls are made; after an error those that still wait are dropped, the
    records have what they would have told.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tracker")

    def __enter__(self) -> TrackerThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=error is None, cancel_futures=error is not None)

    def prepare(self) -> None:
        self._later(self.tracker.prepare)

    def start(self, trial_key: str, name: str, labels: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._later(self.tracker.start, trial_key, name, labels, config)

    def epoch(self, trial_key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        self._later(self.tracker.epoch, trial_key, epoch, metrics)

    def finish(self, record: TrialRecord, name: str) -> None:
        self._later(self.tracker.finish, record, name)

    def sync(self, records: Iterable[TrialRecord]) -> int:
        """After all calls before it; this one waits."""
        return self._thread.submit(self.tracker.sync, records).result()

    def settle(self) -> None:
        self._thread.submit(self.tracker.settle).result()

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        self._thread.submit(call, *arguments).add_done_callback(_complain)


def _complain(call: Future[None]) -> None:
    if not call.cancelled() and (error := call.exception()) is not None:
        logger.warning("tracker: %s: %s; the records have it", type(error).__name__, error)

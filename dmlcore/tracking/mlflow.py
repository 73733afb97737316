"""MLflow as a view of the trial records.

Nothing here can fail a trial: `sync` delivers from the records what a server that was down did not get.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from dmlcore.records import TrialRecord
from dmlcore.tracking.address import explain
from dmlcore.tracking.background import BackgroundTracker
from dmlcore.tracking.base import Tracker
from dmlcore.tracking.runs import Runs
from dmlcore.tracking.store import git_tags, store_uri

logger = logging.getLogger(__name__)
BACKOFF_SECONDS = 120.0
"""After a failed call nothing is sent for that long: a call to a server that is down takes up to 20 s."""


class TrackingError(RuntimeError):
    """MLflow did not take what it was given."""


class MlflowTracker(Tracker):
    """Logs trials to the runs of one experiment; a store that does not answer is a warning."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._backoff_until = 0.0

    @classmethod
    def for_study(cls, study: str, state: Path, repository: Path | None) -> Self:
        """Make the tracker of a study: the server in MLFLOW_TRACKING_URI, else `state/mlflow.db`."""
        uri = store_uri(state)
        artifacts = state / "mlflow-artifacts" if uri.startswith("sqlite") else None
        return cls(Runs(uri, f"dmlcore/{study}", artifacts, git_tags(repository) if repository else {}))

    def running(self, state: Path) -> AbstractContextManager[Tracker]:
        return BackgroundTracker(self, state)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_backoff_until": 0.0}  # the monotonic clock of another process may differ

    def prepare(self) -> None:
        self._try(self.runs.prepare)

    def start(self, trial_key: str, name: str, labels: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._try(self.runs.start, trial_key, name, labels, config)

    def epoch(self, trial_key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        if not self._try(self.runs.log_epoch, trial_key, epoch, metrics):
            self.runs.forget(trial_key)

    def finish(self, record: TrialRecord, name: str) -> None:
        self._try(self.runs.complete, record, name)

    def describe(self, text: str) -> None:
        self._try(self.runs.describe, text)

    def sync(self, records: Iterable[TrialRecord]) -> int:
        try:
            return self.deliver(records)
        except TrackingError as error:
            logger.warning("%s", error)
            return 0

    def deliver(self, records: Iterable[TrialRecord]) -> int:
        """Bring the store up to the records, as `Runs.deliver`, and raise where it does not answer.

        Args:
            records: all of the study; while no sweep runs.

        Returns:
            How many runs were behind.

        Raises:
            TrackingError: the store does not answer.
        """
        try:
            self.runs.prepare()
            return self.runs.deliver({record.trial_key: record for record in records})
        except Exception as error:
            what, fix = explain(self.runs.uri, error)
            raise TrackingError(
                f"{what}. The trial records are complete: {fix}, then run `dmlcore sync`"
            ) from error

    def log_models(self, records: Iterable[TrialRecord], study: Path, prepared: Path) -> list[str]:
        from dmlcore.tracking.models import log_best  # imports torch and, when called, MLflow

        return log_best(self.runs, records, study, prepared)

    def _try(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `call` returns; None, with one warning per back-off, where it raises."""
        if time.monotonic() < self._backoff_until:
            return None
        try:
            return call(*arguments)
        except Exception as error:
            self._backoff_until = time.monotonic() + BACKOFF_SECONDS
            what, fix = explain(self.runs.uri, error)
            logger.warning(
                "%s: %s failed; the records have it: %s, then run `dmlcore sync`", what, call.__name__, fix
            )
            return None

"""MLflow as a view of the trial records. Nothing here can fail a trial: what a server that is down did not get is
delivered from the records by `sync`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dmlcore.records import TrialRecord
from dmlcore.tracking.runs import Runs
from dmlcore.tracking.store import git_tags, store_uri

logger = logging.getLogger(__name__)


REST_SECONDS = 120.0
"""After a failed call nothing is sent for that long."""


class TrackingError(RuntimeError):
    """MLflow did not take what it was given."""


class MlflowTracker:
    """Logs trials to the runs of one experiment; a store that does not answer is a warning."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._resting_until = 0.0

    @classmethod
    def for_study(cls, study: str, state: Path, repository: Path | None) -> MlflowTracker:
        """The tracker of a study: the server in MLFLOW_TRACKING_URI, else `state/mlflow.db`.

        `repository` is the checkout whose commit new runs are tagged with; None: no such tag.
        """
        uri = store_uri(state)
        artifacts = state / "mlflow-artifacts" if uri.startswith("sqlite") else None
        return cls(Runs(uri, f"dmlcore/{study}", artifacts, git_tags(repository) if repository else {}))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_resting_until": 0.0}

    def prepare(self) -> None:
        """As `Runs.prepare`."""
        self._quietly("prepare", self.runs.prepare)

    def start(self, trial_key: str, name: str, labels: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """As `Runs.start`."""
        self._quietly("start", lambda: self.runs.start(trial_key, name, labels, config))

    def epoch(self, trial_key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """As `Runs.log_epoch`."""
        if not self._quietly("epoch", lambda: self.runs.log_epoch(trial_key, epoch, metrics)):
            self.runs.forget(trial_key)

    def finish(self, record: TrialRecord, name: str) -> None:
        """As `Runs.complete`."""
        self._quietly("finish", lambda: self.runs.complete(record, name))

    def sync(self, records: Iterable[TrialRecord]) -> int:
        """As `deliver`, but a store that does not answer is a warning; gives how many runs were behind."""
        try:
            return self.deliver(records)
        except TrackingError as error:
            logger.warning("%s", error)
            return 0

    def deliver(self, records: Iterable[TrialRecord]) -> int:
        """Bring the store up to the records: complete each run that is missing or has not ended as its record says,
        and end those that still run without a record, left by a process that was killed.

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
            raise TrackingError(
                f"MLflow at {self.runs.uri} must answer, it did not: {str(error)[:300]}; the records have it all: "
                "start the server, then `dmlcore sync`"
            ) from error

    def _quietly(self, step: str, call: Callable[[], Any]) -> Any:
        if time.monotonic() < self._resting_until:
            return None
        try:
            return call()
        except Exception as error:
            self._resting_until = time.monotonic() + REST_SECONDS
            logger.warning(
                "MLflow at %s: %s failed: %s; the records have it", self.runs.uri, step, str(error)[:300]
            )
            return None

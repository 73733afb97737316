"""The MLflow store of a study: its client and its one experiment. What is here raises."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlcore.tracking.views import TAG, saved_view

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow's own defaults hold a trial for minutes at every call while the server is down.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


class Store:
    """One experiment of an MLflow store.

    Args:
        uri: `sqlite:////absolute/path.db` or the address of a server.
        experiment: e.g. `dmlcore/default`.
        artifacts: where a store without a server of its own keeps artifacts; None: the server decides.
    """

    def __init__(self, uri: str, experiment: str, artifacts: Path | None) -> None:
        self.uri, self.experiment, self.artifacts = uri, experiment, artifacts
        self._client: MlflowClient | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None}

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            from mlflow import MlflowClient

            for chatty in ("alembic", "mlflow"):
                logging.getLogger(chatty).setLevel(logging.WARNING)
            self._client = MlflowClient(tracking_uri=self.uri)
        return self._client

    @property
    def experiment_id(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        location = None if self.artifacts is None else self.artifacts.as_uri()
        return str(self.client.create_experiment(self.experiment, artifact_location=location))

    def prepare(self) -> None:
        """Create database and experiment in one process: concurrent first use breaks MLflow's migration."""
        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        _ = self.experiment_id
        self._offer_view()
        if self.uri.startswith("sqlite:///"):
            self._write_ahead()

    def _offer_view(self) -> None:
        """Give the experiment its saved view, unless it has one: a user may have changed it."""
        experiment = self.client.get_experiment(self.experiment_id)
        if TAG not in experiment.tags:
            self.client.set_experiment_tag(experiment.experiment_id, TAG, saved_view())

    def _write_ahead(self) -> None:
        """SQLite's write-ahead log halves the stalls of several writers; the setting stays in the file."""
        connection = sqlite3.connect(self.uri.removeprefix("sqlite:///"))
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()

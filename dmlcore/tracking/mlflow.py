"""MLflow as a view of the trial records: one run a trial key, whatever was retried, resumed or killed.

The join is the tag `trial_key`. Nothing here can fail a trial: what a server that is down did not get is delivered
from the records by `sync`.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlcore.records import TrialRecord, flatten
from dmlcore.tracking.figures import utility_figure
from dmlcore.tracking.views import TAG, saved_view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
SHOWN_IN_TAGS = ("dataset", "backbone", "loss", "arm", "seed")
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
MAX_PARAM = 500


class MlflowTracker:
    """Logs trials to one experiment of an MLflow store.

    Args:
        uri: `sqlite:////absolute/path.db` or the address of a server.
        experiment: e.g. `dmlcore/default`.
        artifacts: where a store without a server of its own keeps artifacts; None: the server decides.
        tags: put on every run (git commit, ...).
    """

    def __init__(self, uri: str, experiment: str, artifacts: Path | None, tags: Mapping[str, str]) -> None:
        self.uri, self.experiment, self.artifacts, self.tags = uri, experiment, artifacts, dict(tags)
        self._client: MlflowClient | None = None
        self._runs: dict[str, str] = {}
        self._logged: dict[str, int] = {}

    @classmethod
    def for_study(cls, study: str, state: Path, repository: Path) -> MlflowTracker:
        """The tracker of a study: the server in MLFLOW_TRACKING_URI, else `state/mlflow.db`."""
        uri = store_uri(state)
        artifacts = state / "mlflow-artifacts" if uri.startswith("sqlite") else None
        return cls(uri, f"dmlcore/{study}", artifacts, git_tags(repository))

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
        self._quietly("prepare", self._offer_view)
        if self.uri.startswith("sqlite:///"):
            self._quietly("prepare", self._write_ahead)

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

    def start(self, trial_key: str, name: str, labels: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Open the run of a trial, the one that is there already if it was tried before."""
        self._quietly("start", lambda: self._open(trial_key, name, labels, config))

    def epoch(self, trial_key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """One batch an epoch; an epoch that an earlier attempt logged is not logged again."""
        self._quietly("epoch", lambda: self._log_epoch(trial_key, epoch, metrics))

    def finish(self, record: TrialRecord, name: str) -> None:
        """Log what the record holds, end the run."""
        self._quietly("finish", lambda: self._complete(record, name))

    def sync(self, records: Mapping[str, TrialRecord]) -> int:
        """Deliver every record whose run is missing or has not ended so; gives how many. `{name: record}`."""
        return self._quietly("sync", lambda: self._deliver(records)) or 0

    def _quietly(self, step: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            logger.warning(
                "MLflow at %s: %s failed: %s; the records have it", self.uri, step, str(error)[:300]
            )
            return None

    def _find(self, trial_key: str) -> Run | None:
        runs = self.client.search_runs([self.experiment_id], f"tags.trial_key = '{trial_key}'", max_results=1)
        return runs[0] if runs else None

    def _open(self, trial_key: str, name: str, labels: Mapping[str, Any], config: Mapping[str, Any]) -> str:
        from mlflow.entities import Param

        run = self._find(trial_key)
        if run is not None:
            self.client.update_run(run.info.run_id, status="RUNNING")
            history = self.client.get_metric_history(run.info.run_id, "validation/map_at_r")
            self._logged[trial_key] = max((point.step for point in history), default=-1)
        else:
            tags = self.tags | {key: str(labels[key]) for key in SHOWN_IN_TAGS if key in labels}
            run = self.client.create_run(
                self.experiment_id,
                run_name=name,
                tags=tags | {"trial_key": trial_key, "mlflow.runName": name},
            )
            params = [Param(key, str(value)[:MAX_PARAM]) for key, value in flatten(config).items()]
            self.client.log_batch(run.info.run_id, params=params)
            self._logged[trial_key] = -1
        self._runs[trial_key] = str(run.info.run_id)
        return self._runs[trial_key]

    def _log_epoch(self, trial_key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        if trial_key not in self._runs or epoch <= self._logged[trial_key]:
            return
        self._log(self._runs[trial_key], metrics, epoch)
        self._logged[trial_key] = epoch

    def _log(self, run_id: str, metrics: Mapping[str, float | None], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = {key: value for key, value in metrics.items() if value is not None and math.isfinite(value)}
        self.client.log_batch(run_id, [Metric(key, value, now, step) for key, value in values.items()])

    def _complete(self, record: TrialRecord, name: str) -> None:
        run_id = self._runs.get(record.trial_key) or self._open(
            record.trial_key, name, record.labels, record.config
        )
        for epoch, metrics in enumerate(record.curve):
            self._log_epoch(
                record.trial_key, epoch, {key: value for key, value in metrics.items() if value is not None}
            )
        final = {
            key: value for key, value in record.metrics.items() if key.startswith(("test/", "untrained/"))
        }
        facts = {"seconds": record.seconds, "peak_memory_bytes": float(record.peak_memory_bytes)}
        self._log(run_id, final | facts, len(record.curve))
        for key, text in _record_tags(record).items():
            self.client.set_tag(run_id, key, text)
        if record.utility:
            figure = utility_figure(record.utility, record.metrics.get("test/opis"))
            self.client.log_figure(run_id, figure, "utility_curve.png")
        self.client.set_terminated(run_id, status=STATUS[record.status])
        self._runs.pop(record.trial_key, None)

    def _deliver(self, records: Mapping[str, TrialRecord]) -> int:
        runs = {run.data.tags.get("trial_key"): run for run in self._all_runs()}
        late = 0
        for name, record in records.items():
            run = runs.get(record.trial_key)
            if run is None or run.info.status != STATUS[record.status]:
                self._complete(record, name)
                late += 1
        return late

    def _all_runs(self) -> list[Run]:
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], max_results=1000, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs


def _record_tags(record: TrialRecord) -> dict[str, str]:
    tags = {
        "trial_status": record.status,
        "attempts": str(record.attempts),
        "data_hash": str(record.hashes.get("data")),
    }
    tags |= {f"version/{name}": version for name, version in record.versions.items()}
    tags |= {f"machine/{name}": str(value) for name, value in record.machine.items()}
    return tags | ({"error": record.error[:MAX_PARAM]} if record.error else {})


def store_uri(state: Path) -> str:
    """MLFLOW_TRACKING_URI, else the SQLite file of the study; a relative SQLite path is made absolute."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        return f"sqlite:///{(state / 'mlflow.db').resolve()}"
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"
    return uri


def git_tags(repository: Path) -> dict[str, str]:
    """The commit that the code is at, and whether files differ from it; empty outside a checkout."""
    commit = _git(repository, "rev-parse", "HEAD")
    if not commit:
        return {}
    return {
        "git_commit": commit,
        "git_dirty": str(bool(_git(repository, "status", "--porcelain", "-uno"))).lower(),
    }


def _git(repository: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=repository, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

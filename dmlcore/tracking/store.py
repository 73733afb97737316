"""The MLflow store of a study: its client and its one experiment. What is here raises."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import sqlite3
import subprocess
import zlib
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from dmlcore.tracking.address import SQLITE, VARIABLE, check_address

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# With MLflow's own defaults every call waits for minutes while the server is down.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# It prints the address of every run, and with it the password of an address that has one.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


DESCRIPTION, LONGEST = "mlflow.note.content", 5_000
"""The tag that MLflow shows as the description of an experiment, and the longest value that every store takes."""


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
            if self.sqlite_file is not None:
                _make_database(self.sqlite_file)
            self._client = MlflowClient(tracking_uri=self.uri)
        return self._client

    @property
    def sqlite_file(self) -> Path | None:
        """The file of a store without a server."""
        return Path(self.uri.removeprefix(SQLITE)) if self.uri.startswith(SQLITE) else None

    @property
    def experiment_id(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        location = None if self.artifacts is None else self.artifacts.as_uri()
        return str(self.client.create_experiment(self.experiment, artifact_location=location))

    def describe(self, text: str) -> None:
        """Set the description of the experiment, shown above its runs; no store is made for it."""
        if self.sqlite_file is not None and not self.sqlite_file.is_file():
            return
        found = self.client.get_experiment_by_name(self.experiment)
        if found is not None and found.tags.get(DESCRIPTION) != text[:LONGEST]:
            self.client.set_experiment_tag(found.experiment_id, DESCRIPTION, text[:LONGEST])

    def prepare(self) -> None:
        """Create database, experiment and its saved view, in one process: concurrent first use breaks the migration."""
        experiment = self.client.get_experiment(self.experiment_id)
        # A view that is there may have been changed by a user.
        if TAG not in experiment.tags:
            self.client.set_experiment_tag(experiment.experiment_id, TAG, saved_view())
        if self.sqlite_file:
            # The write-ahead log halves the stalls of several writers; the setting stays in the file.
            with closing(sqlite3.connect(self.sqlite_file)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")


def _make_database(file: Path) -> None:
    """Make a new database under another name and give it its own once it is whole.

    No MLflow opens what a kill within its migrations leaves.
    """
    if file.is_file() and file.stat().st_size:
        return
    from mlflow import MlflowClient

    file.parent.mkdir(parents=True, exist_ok=True)
    for left in file.parent.glob(f".{file.name}.new-*"):  # by a process that was killed
        if not psutil.pid_exists(int(re.sub(r".*\.new-(\d+).*", r"\1", left.name))):
            left.unlink(missing_ok=True)
    made = file.with_name(f".{file.name}.new-{os.getpid()}")
    MlflowClient(tracking_uri=f"{SQLITE}{made}").search_experiments(max_results=1)
    with suppress(FileNotFoundError):
        if not file.stat().st_size:
            file.unlink()
    try:
        # Not a rename, which would replace the store of another process that was faster.
        os.link(made, file)
    except FileExistsError:
        pass
    finally:
        made.unlink(missing_ok=True)


TAG = "mlflow.sharedViewState.accuracy_against_opis"
NAME = "Accuracy against OPIS"
LABELS = ("variant", "loss", "backbone", "dataset")
"""Tags that tell the variants of a comparison apart; what differs most comes first, since the page cuts long names."""
METRICS = tuple(
    f"test/{name}" for name in ("map_at_r", "recall_at_1", "opis", "opis_corrected", "opis_validation_range")
)
RUN_NAME = "attributes.`Run Name`"


def saved_view() -> str:
    """Return the value of the experiment tag TAG: the table and charts that MLflow's page opens with."""
    state = base64.b64encode(zlib.compress(json.dumps(_state()).encode())).decode()
    return json.dumps({"name": NAME, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{state}"})


def _state() -> dict[str, Any]:
    labels = [f"tags.`{label}`" for label in LABELS]
    metrics = [f"metrics.`{metric}`" for metric in METRICS]
    seed = "tags.`seed`"
    return {
        "orderByKey": "metrics.`test/opis_corrected`",
        "orderByAsc": True,
        "selectedColumns": [*metrics, *labels, seed],
        "columnOrder": [RUN_NAME, *metrics, *labels, seed],
        "columnWidths": {
            RUN_NAME: 480,
            **dict.fromkeys(metrics, 150),
            **dict.fromkeys(labels, 110),
            seed: 60,
        },
        "runsHiddenMode": "SHOWALL",
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": label} for label in LABELS],
        },
        "useGroupedValuesInCharts": True,
        "compareRunSections": [{"uuid": "answer", "name": NAME, "display": True, "isReordered": True}],
        "compareRunCharts": [
            _chart("map_at_r", type="SCATTER", xaxis=_axis(METRICS[3]), yaxis=_axis(METRICS[0])),
            _chart("recall_at_1", type="SCATTER", xaxis=_axis(METRICS[3]), yaxis=_axis(METRICS[1])),
            _chart("opis_corrected", type="BAR", metricKey=METRICS[3]),
        ],
    }


def _chart(uuid: str, **settings: Any) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "metricSectionId": "answer",
        "deleted": False,
        "runsCountToCompare": 100,
        **settings,
    }


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}


def store_uri(state: Path) -> str:
    """Return MLFLOW_TRACKING_URI, else the SQLite file of the study; a relative SQLite path is made absolute.

    Raises:
        ConfigError: MLflow cannot have a store at MLFLOW_TRACKING_URI.
    """
    return check_address(os.environ.get(VARIABLE) or f"{SQLITE}{state / 'mlflow.db'}")


def git_tags(repository: Path) -> dict[str, str]:
    """Return the commit that the code is at, and whether files differ from it; empty outside a checkout."""
    commit = _git(repository, "rev-parse", "HEAD")
    if not commit:
        return {}
    dirty = bool(_git(repository, "status", "--porcelain", "-uno"))
    return {"git_commit": commit, "git_dirty": str(dirty).lower()}


def _git(repository: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=repository, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

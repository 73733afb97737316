"""The runs of one MLflow experiment: one per trial key, whatever was retried, resumed or killed. What is here raises.

The tag `trial_key` joins runs and records.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlcore.records import TrialRecord, flatten
from dmlcore.tracking.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.entities import Metric, Run

SHOWN_IN_TAGS = ("dataset", "backbone", "loss", "variant", "role", "ask", "seed")
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
CURVES = ("validation/map_at_r", "final/train/loss")
"""A reopened run knows by their steps which epochs it has: each epoch logs one of the two."""
MAX_PARAM = 500
"""Characters of a parameter: what every store of MLflow takes."""


class Runs(Store):
    """The runs of one experiment.

    Args:
        uri, experiment, artifacts: of the `Store`.
        tags: put on every run (git commit, ...).
    """

    def __init__(self, uri: str, experiment: str, artifacts: Path | None, tags: Mapping[str, str]) -> None:
        super().__init__(uri, experiment, artifacts)
        self.tags = dict(tags)
        self._open: dict[str, str] = {}
        """Trial key -> id of the run that this process writes to."""
        self._logged: dict[str, int] = {}
        """Trial key -> last epoch that the run has; -1: none."""

    def find(self, trial_key: str) -> Run | None:
        """Look up the run of a trial."""
        runs = self.client.search_runs([self.experiment_id], f"tags.trial_key = '{trial_key}'", max_results=1)
        return runs[0] if runs else None

    def start(self, trial_key: str, name: str, labels: Mapping[str, Any], config: Mapping[str, Any]) -> str:
        """Open the run of a trial, its existing one if it was tried before; return its id."""
        from mlflow.entities import Param

        run = self.find(trial_key)
        if run is not None:
            self.client.update_run(run.info.run_id, status="RUNNING")
            self._logged[trial_key] = self._last_step(run.info.run_id)
        else:
            tags = self.tags | {key: str(labels[key]) for key in SHOWN_IN_TAGS if key in labels}
            run = self.client.create_run(
                self.experiment_id,
                run_name=name,
                tags=tags | {"trial_key": trial_key, "mlflow.runName": name},
            )
            self._logged[trial_key] = -1
        # A run whose first writer was killed right after `create_run` has no parameters either.
        if not run.data.params:
            params = [Param(key, str(value)[:MAX_PARAM]) for key, value in flatten(config).items()]
            self.client.log_batch(run.info.run_id, params=params)
        self._open[trial_key] = str(run.info.run_id)
        return self._open[trial_key]

    def _last_step(self, run_id: str) -> int:
        histories = [self.client.get_metric_history(run_id, key) for key in CURVES]
        return max((point.step for history in histories for point in history), default=-1)

    def forget(self, trial_key: str) -> None:
        """Log no further epoch to a run that missed one: a later step would hide the gap. `complete` delivers them."""
        self._open.pop(trial_key, None)

    def log_epoch(self, trial_key: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Log an epoch in one batch unless an earlier attempt did; return whether the run has it."""
        if trial_key not in self._open:
            return False
        if epoch > self._logged[trial_key]:
            self.client.log_batch(self._open[trial_key], _points(metrics, epoch))
            self._logged[trial_key] = epoch
        return True

    def _log_end(self, run_id: str, record: TrialRecord) -> None:
        """Log final metrics, facts and tags in one call, without what the run has: a kill may have cut it short."""
        from mlflow.entities import RunTag

        known = self.client.get_run(run_id).data.metrics
        final = {
            key: value
            for key, value in record.metrics.items()
            if key.startswith(("test/", "untrained/", "features/"))
        }
        facts = {"seconds": record.seconds, "peak_memory_bytes": float(record.peak_memory_bytes)}
        points = _points(final, len(record.curve)) + _points(facts, record.attempts)
        self.client.log_batch(
            run_id,
            metrics=[point for point in points if known.get(point.key) != point.value],
            tags=[RunTag(key, text) for key, text in _record_tags(record).items()],
        )

    def complete(self, record: TrialRecord, name: str) -> None:
        """Log what the record holds, then end the run: a run that ended has everything."""
        key = record.trial_key
        run_id = self._open.get(key) or self.start(key, name, record.labels, record.config)
        for epoch, metrics in enumerate(record.curve):
            self.log_epoch(key, epoch, {path: value for path, value in metrics.items() if value is not None})
        self._log_end(run_id, record)
        if record.utility:
            figure = utility_figure(record.utility, record.metrics.get("test/opis"))
            self.client.log_figure(run_id, figure, "utility_curve.png")
        self.client.set_terminated(run_id, status=STATUS[record.status])
        self._open.pop(key, None)

    def deliver(self, records: Mapping[str, TrialRecord]) -> int:
        """Complete the runs that are missing or behind their record, labels included, and end those left running.

        Args:
            records: trial key -> record, all of the study.

        Returns:
            How many runs were behind.
        """
        runs = {run.data.tags.get("trial_key"): run for run in self._all_runs()}
        late = [
            record
            for key, record in records.items()
            if key not in runs or runs[key].info.status != STATUS[record.status]
        ]
        for record in late:
            self.complete(record, record.name)
        renamed = [key for key, record in records.items() if key in runs and self._relabel(runs[key], record)]
        running = [run for key, run in runs.items() if key and run.info.status == "RUNNING"]
        orphans = [run for run in running if run.data.tags["trial_key"] not in records]
        for run in orphans:
            self.client.set_tag(run.info.run_id, "trial_status", "interrupted")
            self.client.set_terminated(run.info.run_id, status="KILLED")
        return len({record.trial_key for record in late}.union(renamed)) + len(orphans)

    def _relabel(self, run: Run, record: TrialRecord) -> bool:
        """Give a run, and the models logged from it, the labels of its record; return whether it had others.

        Labels change after a trial: by a new name in params.yaml, and when a search chooses its settings at its end.
        """
        from mlflow.entities import RunTag

        labels = {key: str(record.labels[key]) for key in SHOWN_IN_TAGS if key in record.labels}
        wanted = labels | {"mlflow.runName": record.name}
        changed = {key: text for key, text in wanted.items() if run.data.tags.get(key) != text}
        if not changed:
            return False
        # Models first: a kill in between leaves a run that is found again.
        query = f"source_run_id = '{run.info.run_id}'"
        for model in self.client.search_logged_models([run.info.experiment_id], filter_string=query):
            self.client.set_logged_model_tags(model.model_id, labels)
        self.client.log_batch(run.info.run_id, tags=[RunTag(key, text) for key, text in changed.items()])
        return True

    def _all_runs(self) -> list[Run]:
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], max_results=1000, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs


def _points(metrics: Mapping[str, float | None], step: int) -> list[Metric]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [
        Metric(key, value, now, step)
        for key, value in metrics.items()
        if value is not None and math.isfinite(value)
    ]


def _record_tags(record: TrialRecord) -> dict[str, str]:
    tags = {
        "trial_status": record.status,
        "attempts": str(record.attempts),
        "data_hash": str(record.hashes.get("data")),
    }
    tags |= {f"version/{name}": version for name, version in record.versions.items()}
    tags |= {f"machine/{name}": str(value) for name, value in record.machine.items()}
    return tags | ({"error": record.error[:MAX_PARAM]} if record.error else {})


def utility_figure(utility: Mapping[str, Sequence[float]], opis: float | None) -> Figure:
    """Draw the mean utility over the classes, with the band from the 10 % to the 90 % class quantile.

    Args:
        utility: `thresholds`, `mean`, `low`, `high`, one value a threshold.
        opis: printed above; None where it is unknown.
    """
    from dmlcore.metrics.plot import curve_figure  # matplotlib: only the process that draws loads it

    thresholds, mean, low, high = (utility[name] for name in ("thresholds", "mean", "low", "high"))
    score = "" if opis is None else f": OPIS {opis:.5f}"
    title = f"One threshold for all classes{score}\nline: mean over classes; band: 10 % to 90 % of classes"
    return curve_figure(thresholds, mean, low, high, span=(thresholds[0], thresholds[-1]), title=title)

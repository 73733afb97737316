"""A study of four tiny trials to put a fault into, and what must hold after every fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from mlflow import MlflowClient

from dmlcore.config.sweep import SweepConfig
from dmlcore.records import RecordFolder
from dmlcore.sweep.plan import Plan, PlannedTrial
from dmlcore.sweep.run import SweepFolders, publish, run_sweep
from dmlcore.tracking import BackgroundTracker, MlflowTracker
from dmlcore.tracking.base import Tracker
from dmlcore.tracking.runs import Runs
from tests.faults.sabotage import Fault, Saboteur
from tests.small import TRIAL
from tests.sweep.sweeps import plan_of, run_here, sweep_config

EPOCHS = 4
STATUS = {"finished": "FINISHED", "failed": "FAILED"}


class Study:
    """The study in its own folder.

    Args:
        folder: of the study.
        prepared: the folder of prepared data sets.
        config: its sweep.
        uri: of the MLflow store; None: the study's own SQLite file.
    """

    def __init__(self, folder: Path, prepared: Path, config: SweepConfig, uri: str | None = None) -> None:
        self.folders, self.config = SweepFolders(folder, prepared), config
        self.uri = uri or f"sqlite:///{folder / 'state' / 'mlflow.db'}"
        self.experiment = f"dmlcore/{config.study}"

    @property
    def trials(self) -> list[PlannedTrial]:
        return plan_of(self.config, self.folders).trials

    @property
    def records(self) -> RecordFolder:
        return RecordFolder(self.folders.records)

    @property
    def tracker(self) -> MlflowTracker:
        artifacts = self.folders.state / "mlflow-artifacts" if self.uri.startswith("sqlite") else None
        return MlflowTracker(Runs(self.uri, self.experiment, artifacts, {}))

    def run(self, faults: Mapping[str, tuple[Fault, ...]] | None = None) -> Plan:
        """The sweep stage through Ray; `faults` by trial key."""
        marks = self.folders.study / "marks"
        marks.mkdir(parents=True, exist_ok=True)
        placed = {t.store_folder.name: found for t in self.trials if (found := (faults or {}).get(t.key))}
        with BackgroundTracker(self.tracker, self.folders.state) as tracker:
            return run_sweep(self.config, self.folders, tracker, Saboteur(marks, placed))

    def run_here(self, tracker: Tracker | None = None) -> None:
        """The missing trials one after the other in this process; None: the study's tracker."""
        used = tracker or self.tracker
        used.prepare()
        run_here(self.config, self.folders, used)
        publish(plan_of(self.config, self.folders), self.folders)

    def table(self) -> pl.DataFrame:
        return pl.read_parquet(self.folders.results / "trials.parquet")

    def check(
        self,
        reference: Study,
        failed: Iterable[PlannedTrial] = (),
        attempts: Mapping[str, int] | None = None,
    ) -> None:
        """Check that nothing was lost or doubled: records, MLflow and table equal those of an undisturbed sweep.

        Args:
            reference: an undisturbed sweep of the same trials, or more of them.
            failed: trials that the fault must have made fail; they are compared with nothing.
            attempts: trial key -> how often it must have been begun, once where it is not named; None: not compared.
        """
        keys = {trial.key for trial in failed}
        status = {trial.key: "failed" if trial.key in keys else "finished" for trial in self.trials}
        self._check_records(status)
        if attempts is not None:
            found = {record.trial_key: record.attempts for record in self.records.all()}
            assert found == dict.fromkeys(status, 1) | dict(attempts)
        self._check_runs(status)
        assert self.table()["status"].to_list() == [status[key] for key in sorted(status)]
        whole = pl.col("trial_key").is_in(sorted(set(status) - keys))
        assert self.table().filter(whole).equals(reference.table().filter(whole))

    def _check_records(self, status: dict[str, str]) -> None:
        assert sorted(path.name for path in self.folders.records.glob("*.json")) == sorted(
            f"{key}.json" for key in status
        )
        assert {record.trial_key: record.status for record in self.records.all()} == status

    def _check_runs(self, status: dict[str, str]) -> None:
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(self.experiment)
        runs = client.search_runs([experiment.experiment_id])
        assert sorted(run.data.tags["trial_key"] for run in runs) == sorted(status)
        for run in runs:
            ended = status[run.data.tags["trial_key"]]
            assert run.info.status == STATUS[ended]
            points = [
                (key, point.step)
                for key in run.data.metrics
                for point in client.get_metric_history(run.info.run_id, key)
            ]
            assert {point: count for point, count in Counter(points).items() if count > 1} == {}
            steps = {step for key, step in points if key == "validation/map_at_r"}
            assert ended == "failed" or steps == set(range(EPOCHS + 1))


def study_config(**changes: Any) -> SweepConfig:
    trial = {key: value for key, value in TRIAL.items() if key not in ("dataset", "loss")}
    values = {
        "trial": trial | {"train": TRIAL["train"] | {"epochs": EPOCHS}},
        "seeds": [0, 1],
        "resources": {"max_concurrent": 2},
    }
    return sweep_config(**(values | changes))

"""A sweep of the small data set, and a way to run it without Ray."""

from __future__ import annotations

from typing import Any, NoReturn

from dmlcore.config.base import canonical, parse
from dmlcore.config.sweep import SweepConfig
from dmlcore.records import TrialRecord
from dmlcore.sweep.execution.worker import WorkerContext, execute
from dmlcore.sweep.plan import Plan, PlannedTrial
from dmlcore.sweep.planning import make_plan
from dmlcore.sweep.run import SweepFolders
from dmlcore.tracking.base import Tracker
from dmlcore.training.checkpoint import EpochReport
from tests.small import TRIAL


def sweep_config(**changes: Any) -> SweepConfig:
    values = {
        "study": "t",
        "trial": {key: value for key, value in TRIAL.items() if key not in ("dataset", "loss")},
        "datasets": ["small"],
        "backbones": {"resnet": {}},
        "losses": {"ms": {"loss": {"name": "multi_similarity"}}},
        "regularizers": [[], [{"name": "tcm"}]],
    }
    return parse(SweepConfig, values | changes, "params.yaml")


def plan_of(config: SweepConfig, folders: SweepFolders) -> Plan:
    return make_plan(config, study=folders.study, prepared=folders.prepared)


def run_here(config: SweepConfig, folders: SweepFolders, tracker: Tracker) -> list[TrialRecord]:
    """Run each missing trial in this process, without Ray."""
    records = []
    for trial in plan_of(config, folders).missing:

        def report(epoch: EpochReport, trial: PlannedTrial = trial) -> None:
            tracker.epoch(trial.key, epoch.epoch, epoch.metrics)

        tracker.start(trial.key, trial.name, trial.cell.labels, canonical(trial.cell.config))
        records.append(execute(trial, worker_context(folders), report))
        tracker.finish(records[-1], trial.name)
    return records


def worker_context(folders: SweepFolders, **changes: Any) -> WorkerContext:
    return WorkerContext(folders.state, 0.0, **changes)


def not_called(*arguments: Any, **named: Any) -> NoReturn:
    """In place of `run_trial`, where nothing must be trained."""
    raise AssertionError("nothing must be trained")

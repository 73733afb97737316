"""A sweep of the small data set for tests, and a way to run it without Ray."""

from __future__ import annotations

from typing import Any

from dmlcore.config import SweepConfig, parse
from dmlcore.records import TrialRecord
from dmlcore.tuning.plan import Plan, make_plan
from dmlcore.tuning.sweep import SweepFolders
from dmlcore.tuning.worker import Tracker, Workplace, execute
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
    """The sweep without Ray: each missing trial in this process."""
    place = Workplace(folders.records, folders.state / "locks", 0.0, tracker)
    return [execute(trial, place, lambda report: None) for trial in plan_of(config, folders).missing]

"""A search on the small data set for tests, a way to run it without Ray, and records without training."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmlcore.config.sweep import OBJECTIVES, SearchConfig, SweepConfig
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.execution.worker import StoppedEarlyError, WorkerContext, execute, make_record
from dmlcore.sweep.run import SweepFolders
from dmlcore.sweep.search.asha import ASHAPruner
from dmlcore.sweep.search.log import Ask
from dmlcore.sweep.search.plan import group_plans
from dmlcore.sweep.search.search_run import Search, open_search_run
from tests.memory_tracker import MemoryTracker
from tests.sweep.sweeps import plan_of, sweep_config, workplace

RATE = "train.optimizer.learning_rate"
MARGIN = "regularizers.tcm.params.positive_margin"
SEARCH: dict[str, Any] = {
    "space": {RATE: {"low": 1.0e-4, "high": 1.0e-1, "log": True}, MARGIN: {"low": 0.6, "high": 0.95}},
    "trials": 3,
    "startup": 2,
}
OPIS = "validation/opis"
MAP = "validation/map_at_r"


def searching(search: dict[str, Any] | None = None, **changes: Any) -> SweepConfig:
    return sweep_config(**{"search": SEARCH | (search or {}), "seeds": [0, 1], **changes})


def opened(config: SweepConfig, folders: SweepFolders, place: WorkerContext) -> Search:
    assert config.search is not None
    plans = group_plans(config, config.search, study=folders.study, prepared=folders.prepared)
    return open_search_run(
        plans, plan_of(config, folders).recorded, place, MemoryTracker(), lambda trials: {}
    )


def search_here(config: SweepConfig, folders: SweepFolders, most: int = 1000) -> list[TrialRecord]:
    """The search without Ray, one trial at a time in this process, given up after `most` trials."""
    place = workplace(folders)
    course, records = opened(config, folders, place), []
    halving = ASHAPruner(config.stop_early) if config.stop_early else None
    plan = plan_of(config, folders)
    if halving:
        halving.recall((t, plan.records[t.key]) for t in plan.trials if t.key in plan.records)
    while len(records) < most and (trial := course.next()):

        def report(epoch, trial=trial):
            reason = halving and halving.judge(trial, epoch.epoch, epoch.metrics.get(MAP))
            if reason:
                raise StoppedEarlyError(reason)

        records.append(execute(trial, place, report))
        course.tell(trial)
    return records


def search_untrained(config: SweepConfig, folders: SweepFolders, most: int = 1000) -> list[TrialRecord]:
    """As `search_here`, but no trial is trained: its metrics are drawn from its config."""
    place = workplace(folders)
    course, records = opened(config, folders, place), []
    while len(records) < most and (trial := course.next()):
        values = np.random.default_rng(int(trial.keys.train[:8], 16)).uniform(0, 1, 2)
        metrics = dict(zip((MAP, OPIS), values.tolist(), strict=True))
        records.append(make_record(trial, status="finished", metrics=metrics))
        RecordFolder(folders.records).write(records[-1])
        course.tell(trial)
    return records


def search_of(**changes: Any) -> SearchConfig:
    return SearchConfig.model_validate_json(SearchConfig(**{**_plain(), **changes}).model_dump_json())


def _plain() -> dict[str, Any]:
    return {"space": {"x": {"low": 0.0, "high": 1.0}}, "trials": 50, "startup": 10}


def record_of(key: str, status: str = "finished", **metrics: float | None) -> TrialRecord:
    """A record of a trial that was never run; metrics by the last part of their name."""
    named = {f"validation/{name}": value for name, value in metrics.items()}
    assert named.keys() <= OBJECTIVES.keys()
    return TrialRecord(
        trial_key=key, train_key=key, eval_key=key, status=status, config={}, metrics=named, curve=[named]
    )


def ask_of(number: int, **params: Any) -> Ask:
    return Ask(number=number, params=params, trial_key=f"k{number}")

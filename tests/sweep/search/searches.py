"""A search on the small data set for tests, a way to run it without Ray, and records without training."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmlcore.config.search import OBJECTIVES, SearchConfig
from dmlcore.config.sweep import SweepConfig
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.execution.worker import StoppedEarlyError, WorkerContext, execute, make_record
from dmlcore.sweep.run import SweepFolders
from dmlcore.sweep.search.early_stopping import ASHAPruner
from dmlcore.sweep.search.log import Suggestion
from dmlcore.sweep.search.plan import group_plans
from dmlcore.sweep.search.search_run import SearchRun
from tests.memory_tracker import MemoryTracker
from tests.sweep.sweeps import plan_of, sweep_config, worker_context

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


def opened(config: SweepConfig, folders: SweepFolders, context: WorkerContext) -> SearchRun:
    assert config.search is not None
    plans = group_plans(config, config.search, study=folders.study, prepared=folders.prepared)
    recorded = plan_of(config, folders).recorded
    return SearchRun(plans, recorded, context, MemoryTracker(), lambda trials: {}, config.priority)


def search_here(config: SweepConfig, folders: SweepFolders, most: int = 1000) -> list[TrialRecord]:
    """The search without Ray, one trial at a time in this process, given up after `most` trials."""
    context = worker_context(folders)
    search, records = opened(config, folders, context), []
    pruner = ASHAPruner(config.stop_early) if config.stop_early else None
    plan = plan_of(config, folders)
    if pruner:
        pruner.replay((t, plan.records[t.key]) for t in plan.trials if t.key in plan.records)
    while len(records) < most and (trial := search.next_trial()):

        def report(epoch, trial=trial):
            reason = pruner and pruner.should_stop(trial, epoch.epoch, epoch.metrics.get(MAP))
            if reason:
                raise StoppedEarlyError(reason)

        records.append(execute(trial, context, report))
        search.record_result(trial)
    return records


def search_untrained(config: SweepConfig, folders: SweepFolders, most: int = 1000) -> list[TrialRecord]:
    """As `search_here`, but no trial is trained: its metrics are drawn from its config."""
    context = worker_context(folders)
    search, records = opened(config, folders, context), []
    while len(records) < most and (trial := search.next_trial()):
        values = np.random.default_rng(int(trial.keys.train[:8], 16)).uniform(0, 1, 2)
        metrics = dict(zip((MAP, OPIS), values.tolist(), strict=True))
        records.append(make_record(trial, status="finished", metrics=metrics))
        RecordFolder(folders.records).write(records[-1])
        search.record_result(trial)
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


def suggestion_of(number: int, **params: Any) -> Suggestion:
    return Suggestion(number=number, params=params, trial_key=f"k{number}")

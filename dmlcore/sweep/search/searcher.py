"""A search as Ray Tune takes it: a searcher that hands out planned trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.tune import TuneConfig
from ray.tune.search import Searcher

from dmlcore.config.sweep import ResourcesConfig
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.ray.callbacks import Watcher
from dmlcore.sweep.search.search_run import Search

MANY = 10_000
"""Tune starts one actor after the other unless it is told that many trials may wait; `room` is the limit."""


RESOURCES = {"cpu": "CPU", "gpu": "GPU", "memory": "memory"}
"""What a trial asks for -> what the cluster calls it."""


def searching(
    search: Search, watcher: Watcher, bundle: Mapping[str, float], resources: ResourcesConfig
) -> TuneConfig:
    """How Tune runs a search.

    Args:
        search: what to run.
        watcher: as in PlannedTrials.
        bundle: CPUs, GPUs and memory of a trial.
        resources: how many at a time at most; without that, as many as the cluster carries, nodes that join included.
    """

    def room() -> int:
        there = ray.cluster_resources()
        fits = [int(there.get(RESOURCES[kind], 0.0) // need) for kind, need in bundle.items() if need]
        return max(1, min([*fits, resources.max_concurrent or MANY]))

    searcher = PlannedTrials(search, watcher, room)
    return TuneConfig(
        search_alg=searcher, num_samples=-1, max_concurrent_trials=MANY, reuse_actors=resources.reuse_workers
    )


class PlannedTrials(Searcher):
    """Suggests the trials of a search, never more at a time than there is room for: a setting is asked for when it can
    start, so that it rests on all that is known by then.

    Args:
        search: what to run.
        watcher: makes a trial ready for its worker, and fetches its record.
        room: how many trials the cluster can run now.
    """

    def __init__(self, search: Search, watcher: Watcher, room: Callable[[], int]) -> None:
        super().__init__()
        self.search, self.watcher, self.room = search, watcher, room
        self._running: dict[str, PlannedTrial] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that this project never does (the log and records are the truth)."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The config of the next trial; None: wait; FINISHED: that was all."""
        if len(self._running) >= self.room():
            return None
        while (trial := self.search.next()) is not None:
            ready = self.watcher.admit(trial)
            if ready is not None:
                self._running[trial_id] = trial
                return {"trial_key": ready.key, "trial": ready}
            self.search.tell(trial)
        return Searcher.FINISHED if self.search.finished else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial = self._running.pop(trial_id)
        self.watcher.record(trial)  # Tune tells its searcher before its callbacks
        self.search.tell(trial)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the log and the records are the state."""

"""The death of a worker by Ray's memory monitor, as Tune's actor manager hears of it; tests/faults does it for real."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

from dmlcore.sweep.ray.cluster import MemoryKillError, memory_kills_as_deaths

MESSAGE = """1 worker(s) were killed due to the node running low on memory. Memory on the node was 9GB / 9GB.
OOM kill reason: Memory usage 9B exceeded threshold of 8B
Object store memory usage: [- objects spillable: 0
"""


class Manager(RayActorManager):
    """Ray's own, without a cluster to clean up."""

    def __init__(self) -> None:
        self._failed_actor_ids, self.cleaned = set(), []

    def _cleanup_actor(self, tracked_actor, **named) -> None:
        self.cleaned.append(tracked_actor)


def failed(error):
    """What the actor's and the task's owners are told of an error."""
    manager, told = Manager(), []
    actor = SimpleNamespace(actor_id=1, _on_error=lambda actor, error: told.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: told.append(error))
    manager._actor_task_failed(tracked_actor_task=task, exception=error)  # as Ray calls it
    return manager, actor, told


def test_tune_alone_would_end_the_sweep():
    with pytest.raises(RuntimeError, match="unexpected exception"):
        failed(OutOfMemoryError(MESSAGE))


def test_a_memory_kill_is_the_death_of_an_actor():
    with memory_kills_as_deaths():
        manager, actor, told = failed(OutOfMemoryError(MESSAGE))
    assert manager.cleaned == [actor]
    assert [type(error) for error in told] == [MemoryKillError] * 2
    kept = pickle.loads(pickle.dumps(told[0]))  # as Tune keeps it
    assert isinstance(kept, RayActorError)
    assert str(kept).startswith("Ray ended it for want of memory: 1 worker(s) were killed due to the node")
    assert str(kept).endswith("exceeded threshold of 8B")
    assert "\n" not in str(kept)
    with pytest.raises(RuntimeError):  # outside as before
        failed(OutOfMemoryError(MESSAGE))

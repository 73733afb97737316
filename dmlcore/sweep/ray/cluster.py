"""Ray: started on this machine, or a cluster whose every node is checked before the first trial."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from dmlcore.config.sweep import ClusterConfig
from dmlcore.sweep.ray.node_checks import PACKAGE, StorageProbe, check_nodes
from dmlcore.sweep.ray.shared_storage import ClusterError, SharedStorage

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray's own kill for want of memory ends the whole sweep; without it the kernel ends one worker, which is tried again.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
# Workers started ahead come too late for a sweep's first trials, and only compete with theirs.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")


@dataclass(frozen=True)
class Connection:
    """Ray as it was found."""

    concurrent: int
    """Trials that run at a time, as far as CPUs tell."""
    exchange: SharedStorage | None = None
    meeting: StorageProbe | None = None


@contextmanager
def connected(cluster: ClusterConfig, state: Path, needs: list[Path]) -> Iterator[Connection]:
    """Ray for a sweep: the cluster at RAY_ADDRESS or `cluster.address`, checked; else started here.

    Args:
        cluster: the section of params.yaml.
        state: the study's state folder.
        needs: folders and files that trials read by path where nothing is exchanged.

    Raises:
        ClusterError: a node that cannot run trials; names each with what is wrong.
    """
    address = os.environ.get("RAY_ADDRESS") or cluster.address
    _start(address)
    gc.freeze()  # what is there before the first trial need not be walked through, least of all in `_stop`
    previous = signal.signal(signal.SIGTERM, _interrupt)  # after ray.init, which sets a handler of its own
    try:
        if address is None:
            yield Connection(_cpus())
        else:
            exchange = SharedStorage(cluster.storage) if cluster.storage else None
            meeting = StorageProbe.call(state, exchange)
            try:
                check_nodes(meeting, [] if exchange else needs)
                yield Connection(_cpus(), exchange, meeting)
            finally:
                meeting.end()
    finally:
        _stop()
        signal.signal(signal.SIGTERM, previous)


def _start(address: str | None) -> None:
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        ray.init(address="local", include_dashboard=False, **options)
        return
    if address.startswith("ray://"):
        raise ClusterError(
            f"the address of the cluster must be HOST:PORT or auto, got {address!r}: from outside the cluster use "
            "`ray job submit` (docs/how-to/cluster.md)"
        )
    shipped = {"py_modules": [str(PACKAGE)], "excludes": ["**/__pycache__/**"]}
    try:
        ray.init(address=address, runtime_env=shipped, **options)
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error}") from error


def _stop() -> None:
    """Leave Ray. Its objects go before it does: another thread in which the collector met one while Ray stops would end
    this process at once ("The core worker has already been shutdown").
    """
    gc.collect()
    gc.disable()
    gc.unfreeze()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def _cpus() -> int:
    return int(ray.cluster_resources().get("CPU", 1))


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt

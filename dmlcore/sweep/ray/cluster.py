"""Connection to Ray: started on this machine, or a cluster whose every node is checked before the first trial."""

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
# A trial that asks for no GPU leaves CUDA_VISIBLE_DEVICES as it is: the default of new versions of Ray alone.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray's own out-of-memory kill ends the whole sweep; without it the kernel kills one worker, whose trial is retried.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
# Workers started ahead are ready too late for a sweep's first trials, and compete with them for the CPUs.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")


@dataclass(frozen=True)
class Connection:
    """What the sweep knows of the Ray that it is connected to."""

    concurrent: int
    """Trials that run at a time, by CPUs alone."""
    storage: SharedStorage | None = None
    """None: all nodes share the driver's disk."""
    probe: StorageProbe | None = None
    """None: Ray was started on this machine."""


@contextmanager
def connected(cluster: ClusterConfig, state: Path, paths: list[Path]) -> Iterator[Connection]:
    """Connect to the cluster at RAY_ADDRESS or `cluster.address` and check it; without an address, start Ray here.

    Args:
        cluster: the section of params.yaml.
        state: the study's state folder.
        paths: folders and files that trials read, where nodes share the driver's disk.

    Raises:
        ClusterError: nodes that cannot run trials; names each with what is wrong.
    """
    address = os.environ.get("RAY_ADDRESS") or cluster.address
    _start(address)
    gc.freeze()  # the libraries' million objects: neither the sweep nor `_stop` need walk through them
    # SIGTERM ends the sweep as Ctrl-C does, with what is finished kept. After ray.init, which sets its own handler.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if address is None:
            yield Connection(_cpus())
        else:
            storage = SharedStorage(cluster.storage) if cluster.storage else None
            probe = StorageProbe.create(state, storage)
            try:
                check_nodes(probe, [] if storage else paths)
                yield Connection(_cpus(), storage, probe)
            finally:
                probe.remove()
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
            f"the address of the cluster must be HOST:PORT or auto, got {address!r}; from outside the cluster use "
            "`ray job submit` (docs/how-to/cluster.md)"
        )
    # Nodes run the driver's code, whatever is checked out there.
    shipped = {"py_modules": [str(PACKAGE)], "excludes": ["**/__pycache__/**"]}
    try:
        ray.init(address=address, runtime_env=shipped, **options)
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error}") from error


def _stop() -> None:
    """Disconnect from Ray, with the garbage collector off.

    If another thread runs the collector while Ray shuts down, and so frees the handle of an actor, Ray ends this
    process at once: "The core worker has already been shutdown". So all garbage is freed before.
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

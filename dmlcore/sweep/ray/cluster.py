"""Connection to Ray: started on this machine, or a cluster whose every node is checked before the first trial."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from dmlcore.config.sweep import ClusterConfig, ResourcesConfig
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.ray.address import check_address
from dmlcore.sweep.ray.node_checks import PACKAGE, StorageProbe, check_nodes
from dmlcore.sweep.ray.private_session import private_session
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
        ClusterError: Ray does not start or answer; or nodes that cannot run trials, each named with what is wrong.
    """
    address = os.environ.get("RAY_ADDRESS") or cluster.address
    session: AbstractContextManager[dict[str, Any]] = nullcontext({}) if address else private_session()
    with session as options:
        _start(address, options)
        gc.freeze()  # the libraries' million objects: neither the sweep nor `_stop` need walk through them
        # SIGTERM ends the sweep as Ctrl-C does, with what is finished kept. After ray.init, which sets its own handler.
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            if address:
                with _checked(cluster, state, paths) as connection:
                    yield connection
            else:
                yield Connection(_cpus())
        finally:
            _stop()
            signal.signal(signal.SIGTERM, previous)


@contextmanager
def _checked(cluster: ClusterConfig, state: Path, paths: list[Path]) -> Iterator[Connection]:
    """Check every node of the cluster, and yield the connection."""
    storage = SharedStorage(cluster.storage) if cluster.storage else None
    probe = StorageProbe.create(state, storage)
    try:
        check_nodes(probe, [] if storage else paths)
        yield Connection(_cpus(), storage, probe)
    finally:
        probe.remove()


def _start(address: str | None, options: dict[str, Any]) -> None:
    if address:
        check_address(address)
        # Nodes run the driver's code, whatever is checked out there.
        shipped = {"py_modules": [str(PACKAGE)], "excludes": ["**/__pycache__/**"]}
        options = options | {"runtime_env": shipped}
    try:
        ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:  # where its node does not start within 30 s, Ray raises a plain Exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = f"no Ray cluster answers at {address}" if address else "Ray does not start on this machine"
        raise ClusterError(f"{where}: {reason}") from error


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


def trial_bundle(trials: Iterable[PlannedTrial], resources: ResourcesConfig) -> dict[str, float]:
    """Return what Ray reserves for a trial, in Ray's names; all its processes are on one node."""
    bundle = {
        "CPU": float(max(trial.cell.config.threads for trial in trials) * resources.processes_per_trial),
        "GPU": resources.gpus,
        "memory": float(resources.memory_bytes or 0),
    }
    return {name: need for name, need in bundle.items() if need}


def capacity(bundle: Mapping[str, float]) -> int:
    """Return how many trials the nodes can run now: they may join and leave."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    # Ray counts in parts of 10,000, which floats of a fraction of a GPU must not miss by the last bit.
    fits = [min(int(node.get(name, 0.0) / need + 1e-6) for name, need in bundle.items()) for node in nodes]
    return sum(fits)


def check_fits(bundle: Mapping[str, float], resources: ResourcesConfig) -> None:
    """Refuse a trial over several processes that no node can hold: Ray would wait for such a node without an end.

    Raises:
        ClusterError: says what is needed, and what the nodes have.
    """
    if resources.processes_per_trial == 1 or capacity(bundle):
        return
    nodes = [node for node in ray.nodes() if node["Alive"]]
    lines = [f"  node {node['NodeManagerHostname']}: {_amounts(node['Resources'], bundle)}" for node in nodes]
    raise ClusterError(
        f"a trial of {resources.processes_per_trial} processes needs {_amounts(bundle, bundle)} on one node, no node "
        "has so many; lower sweep.resources.gpus or .processes, or trial.threads\n" + "\n".join(lines)
    )


def _amounts(amounts: Mapping[str, float], names: Iterable[str]) -> str:
    return ", ".join(f"{amounts.get(name, 0.0):g} {name}" for name in names)


def _cpus() -> int:
    return int(ray.cluster_resources().get("CPU", 1))

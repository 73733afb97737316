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
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError

from dmlcore.config.sweep import ClusterConfig, ResourcesConfig
from dmlcore.sweep.file_store import ClusterError
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.ray.address import check_address
from dmlcore.sweep.ray.allocator import allocator_settings
from dmlcore.sweep.ray.node_checks import PACKAGE, StorageProbe, check_nodes
from dmlcore.sweep.ray.private_session import private_session
from dmlcore.sweep.ray.shared_storage import SharedStorage

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A trial that asks for no GPU leaves CUDA_VISIBLE_DEVICES as it is: the default of new versions of Ray alone.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray started here ends no worker for want of memory: programs beside it may take what it counts. The kernel does, for
# which Ray marks workers as the first to go. On a cluster Ray may be set to: see `memory_kills_as_deaths`.
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
        options = options | {"runtime_env": shipped | {"env_vars": allocator_settings()}}
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


class MemoryKillError(RayActorError):
    """Ray's memory monitor ended the process of a trial."""


@contextmanager
def memory_kills_as_deaths() -> Iterator[None]:
    """Let Tune take a worker that Ray has ended for want of memory as one that died: its trial is tried again.

    The call that the worker was in then raises an OutOfMemoryError. That is neither a RayActorError nor a RayTaskError,
    which are all that the manager of Tune's actors knows (Ray 2.60): it would end the whole sweep. Its process is gone,
    so the error is passed on as one of the first kind.
    """
    handle = RayActorManager._actor_task_failed

    def handle_death(
        self: RayActorManager, tracked_actor_task: TrackedActorTask, exception: Exception
    ) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = MemoryKillError(error_msg=_memory_kill(str(exception)))
        handle(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = handle_death  # type: ignore[method-assign]
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = handle  # type: ignore[method-assign]


def _memory_kill(message: str) -> str:
    """Return Ray's message as one line: which memory was short and why that counts, without its tables and advice."""
    return f"Ray ended it for want of memory: {' '.join(message.strip().splitlines()[:2])}"


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

"""Ray: started on this machine, or a cluster whose every node is checked before the first trial."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import platform
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray's own kill for want of memory ends the whole sweep; without it the kernel ends one worker, which is tried again.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dmlcore.config import ClusterConfig
from dmlcore.tuning.exchange import ClusterError, Exchange

PACKAGE = Path(__file__).resolve().parents[1]
CHECKED_VERSIONS = ("torch", "torchvision", "timm", "numpy")
"""Of these the results depend."""
ANSWER_SECONDS = 120.0


@dataclass(frozen=True)
class Meeting:
    """A token that every node must find: in a file of the shared folder, or in the exchange."""

    token: str
    folder: Path
    exchange: Exchange | None

    @classmethod
    def call(cls, state: Path, exchange: Exchange | None) -> Meeting:
        """Leave a new token; errors of the place itself are raised here."""
        meeting = cls(secrets.token_hex(8), state / "nodes", exchange)
        meeting.write("driver")
        return meeting

    def write(self, who: str) -> None:
        name = f"{self.token}.{who}"
        if self.exchange is not None:
            self.exchange.write(f"nodes/{name}", self.token.encode())
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(self.token)

    def sees(self, who: str) -> bool:
        """Whether what `who` wrote can be read here."""
        name = f"{self.token}.{who}"
        if self.exchange is not None:
            return self.exchange.read(f"nodes/{name}") == self.token.encode()
        file = self.folder / name
        return file.is_file() and file.read_text() == self.token

    def end(self) -> None:
        if self.exchange is not None:
            for name in self.exchange.names("nodes"):
                if name.startswith(self.token):
                    self.exchange.remove(f"nodes/{name}")
        for file in self.folder.glob(f"{self.token}.*"):
            file.unlink(missing_ok=True)

    def check(self) -> None:
        """On a node, before a trial: nodes may join after the others were checked.

        Raises:
            ClusterError: this node does not share the place.
        """
        if not self.sees("driver"):
            raise ClusterError(f"node {platform.node()} does not share {self.place}; {self.remedy}")

    @property
    def place(self) -> str:
        return self.exchange.address if self.exchange else str(self.folder.parent)

    @property
    def remedy(self) -> str:
        if self.exchange:
            return "it must reach this address with the same credentials"
        return (
            "mount the checkout there under the same path, or set `sweep.cluster.storage` to what all reach"
        )


@dataclass(frozen=True)
class Connection:
    """Ray as it was found."""

    concurrent: int
    """Trials that run at a time, as far as CPUs tell."""
    hosts: tuple[str, ...]
    exchange: Exchange | None = None
    meeting: Meeting | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether workers may run on another machine than this."""
        return set(self.hosts) != {platform.node()}


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
    previous = signal.signal(signal.SIGTERM, _interrupt)  # after ray.init, which sets a handler of its own
    try:
        if address is None:
            yield Connection(_cpus(), (platform.node(),))
        else:
            exchange = Exchange(cluster.storage) if cluster.storage else None
            meeting = Meeting.call(state, exchange)
            try:
                hosts = check_nodes(meeting, [] if exchange else needs)
                yield Connection(_cpus(), hosts, exchange, meeting)
            finally:
                meeting.end()
    finally:
        ray.shutdown()
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


def _cpus() -> int:
    return int(ray.cluster_resources().get("CPU", 1))


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def check_nodes(meeting: Meeting, needs: list[Path]) -> tuple[str, ...]:
    """Ask every node whether it shares the place, has the needed files and the driver's versions.

    Returns:
        The nodes' host names.

    Raises:
        ClusterError: one line a fault.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    answers = {}
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        answers[node["NodeID"]] = look.options(scheduling_strategy=strategy).remote(
            meeting, node["NodeID"], needs, _versions()
        )
    faults = []
    for node in nodes:
        name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        faults += [
            f"  {name}: {fault}" for fault in _answer(answers[node["NodeID"]], meeting, node["NodeID"])
        ]
    if faults:
        raise ClusterError(
            f"{len(faults)} fault(s) in the cluster, nothing was started\n" + "\n".join(faults)
        )
    return tuple(sorted({str(node["NodeManagerHostname"]) for node in nodes}))


def _answer(reference: Any, meeting: Meeting, node_id: str) -> list[str]:
    try:
        faults: list[str] = ray.get(reference, timeout=ANSWER_SECONDS)
    except ray.exceptions.RayError as error:
        return [f"does not answer: {str(error).strip().splitlines()[-1]}"]
    if not faults and not meeting.sees(node_id):
        return [f"what it writes to {meeting.place} is not seen here; {meeting.remedy}"]
    return faults


def _look(meeting: Meeting, node_id: str, needs: list[Path], versions: dict[str, str]) -> list[str]:
    """On a node: what is wrong with it."""
    if not meeting.sees("driver"):
        return [f"does not share {meeting.place}; {meeting.remedy}"]
    faults = [f"{path} is missing; {meeting.remedy}" for path in needs if not path.exists()]
    faults += [
        f"has {name} {found}, the driver {versions[name]}; install the same version"
        for name, found in _versions().items()
        if found != versions.get(name, found)
    ]
    try:
        meeting.write(node_id)
    except OSError as error:
        faults.append(f"cannot write to {meeting.place}: {error}")
    return faults


def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in CHECKED_VERSIONS}
    return found | {"dmlcore's code": code()}


def code() -> str:
    """A short hash of this package's files: a node may have other ones at a path that goes before the shipped ones."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]

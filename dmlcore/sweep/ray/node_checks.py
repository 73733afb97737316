"""The nodes of a Ray cluster, each asked before the first trial whether it can run one."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dmlcore.sweep.ray.shared_storage import ClusterError, SharedStorage

PACKAGE = Path(__file__).resolve().parents[2]


CHECKED_VERSIONS = ("torch", "torchvision", "timm", "numpy")
"""Of these the results depend."""


ANSWER_SECONDS = 120.0
MEMORY_MONITOR = "RAY_memory_monitor_refresh_ms"
MEMORY_WARNING = (
    f"was started without {MEMORY_MONITOR}=0: Ray may end a worker for want of memory, and so the sweep"
)


@dataclass(frozen=True)
class StorageProbe:
    """A token that every node must find: in a file of the shared folder, or in the exchange."""

    token: str
    folder: Path
    exchange: SharedStorage | None

    @classmethod
    def call(cls, state: Path, exchange: SharedStorage | None) -> StorageProbe:
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


def check_nodes(meeting: StorageProbe, needs: list[Path]) -> None:
    """Ask every node whether it shares the place, has the needed files and the driver's versions.

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
    faults, warnings = [], []
    for node in nodes:
        name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        found = _answer(answers[node["NodeID"]], meeting, node["NodeID"])
        faults += [f"  {name}: {fault}" for fault in found.faults]
        warnings += [f"sweep: {name}: {warning}" for warning in found.warnings]
    print(*warnings, sep="\n", end="\n" if warnings else "", flush=True)
    if faults:
        raise ClusterError(
            f"{len(faults)} fault(s) in the cluster, nothing was started\n" + "\n".join(faults)
        )


@dataclass(frozen=True)
class NodeReport:
    """What is wrong with a node, and what may go wrong there."""

    faults: list[str]
    warnings: list[str] = field(default_factory=list)


def _answer(reference: Any, meeting: StorageProbe, node_id: str) -> NodeReport:
    try:
        found: NodeReport = ray.get(reference, timeout=ANSWER_SECONDS)
    except ray.exceptions.RayError as error:
        return NodeReport([f"does not answer: {str(error).strip().splitlines()[-1]}"])
    if not found.faults and not meeting.sees(node_id):
        return NodeReport([f"what it writes to {meeting.place} is not seen here; {meeting.remedy}"])
    return found


def _look(meeting: StorageProbe, node_id: str, needs: list[Path], versions: dict[str, str]) -> NodeReport:
    """On a node."""
    if not meeting.sees("driver"):
        return NodeReport([f"does not share {meeting.place}; {meeting.remedy}"])
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
    # a worker has the environment in which its node was started
    guarded = os.environ.get(MEMORY_MONITOR) == "0"
    return NodeReport(faults, [] if guarded else [MEMORY_WARNING])


def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in CHECKED_VERSIONS}
    return found | {"dmlcore's code": code()}


def code() -> str:
    """A short hash of this package's files: a node may have other ones at a path that goes before the shipped ones."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]

"""Checks of every node of a Ray cluster before the first trial: shared storage, files, versions, code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dmlcore.sweep.file_store import ClusterError
from dmlcore.sweep.ray.shared_storage import SharedStorage

PACKAGE = Path(__file__).resolve().parents[2]
CHECKED_VERSIONS = ("torch", "torchvision", "timm", "numpy")
"""Packages whose version changes results."""
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 120.0


@dataclass(frozen=True)
class StorageProbe:
    """A token in the storage of a sweep that every node must be able to read, and to answer with another file."""

    token: str
    storage: SharedStorage
    place: str
    """The storage as messages name it."""
    remedy: str

    @classmethod
    def create(cls, state: Path, storage: SharedStorage | None) -> StorageProbe:
        """Write a new token to the storage, or to the state folder if nodes share the driver's disk.

        Raises:
            SharedStorageError, OSError: the driver itself cannot write there.
        """
        token = secrets.token_hex(8)
        if storage is None:
            remedy = "mount the checkout there under the same path, or set `sweep.cluster.storage` to what all reach"
            probe = cls(token, SharedStorage(f"file://{state}"), str(state), remedy)
        else:
            remedy = "it must reach this address with the same credentials"
            probe = cls(token, storage, storage.address, remedy)
        # A store that has never answered is more likely misnamed than out.
        replace(probe, storage=probe.storage.at_once).write("driver")
        return probe

    def write(self, who: str) -> None:
        self.storage.write(f"nodes/{self.token}.{who}", self.token.encode())

    def can_read(self, who: str) -> bool:
        """Whether this machine can read the file that `who` wrote."""
        return self.storage.read(f"nodes/{self.token}.{who}") == self.token.encode()

    def remove(self) -> None:
        for name in self.storage.names("nodes"):
            if name.startswith(self.token):
                self.storage.remove(f"nodes/{name}")

    def check(self) -> None:
        """Check the node of this process before a trial: it may have joined after the others were checked.

        Raises:
            ClusterError: this node does not share the storage.
        """
        if not self.can_read("driver"):
            raise ClusterError(f"node {platform.node()} does not share {self.place}; {self.remedy}")


def check_nodes(probe: StorageProbe, paths: list[Path]) -> None:
    """Check on every node that it shares the storage, has the paths that trials read, and the driver's versions.

    A node that has died is left out: the sweep goes on without it, as it would had it died later.

    Raises:
        ClusterError: one line for each fault.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and not _is_gone(node)]
    # Without CPUs, so that a check does not wait for trials of another sweep; all nodes answer at the same time.
    remote = ray.remote(num_cpus=0, max_retries=0)(probe_node)
    answers = [
        remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        ).remote(probe, node["NodeID"], paths, _versions())
        for node in nodes
    ]
    faults = []
    for node, answer in zip(nodes, answers, strict=True):
        found = _answered(answer, probe, node["NodeID"])
        if found and not _is_alive(node):
            print(f"sweep: {_name(node)} has died and is left out")
            continue
        faults += [f"  {_name(node)}: {fault}" for fault in found]
    if faults:
        raise ClusterError(
            f"{len(faults)} fault(s) in the cluster, nothing was started\n" + "\n".join(faults)
        )


def _is_gone(node: dict[str, Any]) -> bool:
    """Return whether nobody listens any more where the node's raylet did: Ray takes a minute to say so."""
    address = (node["NodeManagerAddress"], node["NodeManagerPort"])
    # No answer at all, from behind a filter or from a machine that is off, says nothing: Ray decides.
    with suppress(OSError):
        try:
            socket.create_connection(address, timeout=CONNECT_SECONDS).close()
        except ConnectionRefusedError:
            print(f"sweep: {_name(node)} has died and is left out")
            return True
    return False


def _name(node: dict[str, Any]) -> str:
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _is_alive(node: dict[str, Any]) -> bool:
    return any(other["Alive"] for other in ray.nodes() if other["NodeID"] == node["NodeID"])


def _answered(answer: Any, probe: StorageProbe, node_id: str) -> list[str]:
    """Return what is wrong with a node that was asked."""
    try:
        faults: list[str] = ray.get(answer, timeout=ANSWER_SECONDS)
    except ray.exceptions.RayError as error:
        return [f"does not answer: {str(error).strip().splitlines()[-1]}"]
    # Both directions count: a node may see what the driver wrote, yet write to a copy of its own.
    if not faults and not probe.can_read(node_id):
        return [f"the driver cannot read files that this node writes to {probe.place}; {probe.remedy}"]
    return faults


def probe_node(probe: StorageProbe, node_id: str, paths: list[Path], versions: dict[str, str]) -> list[str]:
    """Return what is wrong with the node of this process; `versions` are the driver's."""
    if not probe.can_read("driver"):
        return [f"does not share {probe.place}; {probe.remedy}"]
    faults = [f"{path} is missing; {probe.remedy}" for path in paths if not path.exists()]
    faults += [
        f"has {name} {found}, the driver {versions[name]}; install the same version"
        for name, found in _versions().items()
        if found != versions.get(name, found)
    ]
    try:
        probe.write(node_id)
    except OSError as error:
        faults.append(f"cannot write to {probe.place}: {error}")
    return faults


def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in CHECKED_VERSIONS}
    return found | {"dmlcore's code": code_version()}


def code_version() -> str:
    """Return a short hash of this package's files: a node may import others, from a path before the shipped ones."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]

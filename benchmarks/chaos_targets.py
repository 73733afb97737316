"""What `benchmarks.chaos` kills and stops: Ray nodes and an object store on this machine, and the driver of a sweep."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import psutil
from moto.server import ThreadedMotoServer
from ray.cluster_utils import Cluster

import dmlcore.sweep.ray.cluster  # noqa: F401 (its settings of Ray are for the nodes too)

PATIENCE_SECONDS = 900.0


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("what the benchmark waits for did not happen")
        time.sleep(0.05)


@dataclass(frozen=True)
class Death:
    moment: float
    processes: frozenset[int] = frozenset()
    recorded: frozenset[str] = frozenset()
    """Train keys of the trials whose record was safe by then."""


class Nodes:
    """A Ray cluster on this machine: a head without CPUs, and the nodes that run trials.

    Args:
        folder: holds what a node would have on its own disk.
        cpus: of each node.
        count: of the nodes.
    """

    def __init__(self, folder: Path, cpus: int, count: int = 4) -> None:
        self.folder, self.cpus, self.joined = folder, cpus, 0
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.alive: list[Any] = []
        self.spans: dict[Any, list[float]] = {}
        """Node -> when it joined and, of a dead one, when it died."""
        self.deaths: dict[str, Death] = {}
        for _ in range(count):
            self.join()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def join(self) -> None:
        self.joined += 1
        scratch = {"DMLCORE_SCRATCH": str(self.folder / f"node{self.joined}")}
        node = self.cluster.add_node(num_cpus=self.cpus, env_vars=scratch, wait=False)
        self.alive.append(node)
        self.spans[node] = [time.time()]

    def kill_one(self, choice: random.Random, recorded: Callable[[], frozenset[str]]) -> None:
        """Kill a raylet and all that it started, as the loss of a machine does; then ask what is recorded."""
        node = choice.choice(self.alive)
        self.alive.remove(node)
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        family = [raylet, *raylet.children(recursive=True)]
        for process in family:
            process.kill()
        self.spans[node].append(time.time())
        name = f"raylet {len(self.deaths) + 1}"
        self.deaths[name] = Death(time.time(), frozenset(process.pid for process in family), recorded())
        self.cluster.remove_node(node, allow_graceful=False)

    def seconds(self, began: float, ended: float) -> float:
        """Sum how long nodes were there in a span of time."""
        spans = [(max(span[0], began), min([*span[1:], ended])) for span in self.spans.values()]
        return sum(max(0.0, end - start) for start, end in spans)

    def shutdown(self) -> None:
        self.cluster.shutdown()


@dataclass
class Driver:
    """The process that runs the sweep: `MODULE FOLDER ADDRESS [STORAGE]`."""

    module: str
    folder: Path
    address: str
    storage: str = ""
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    deaths: dict[str, Death] = field(default_factory=dict)

    def start(self) -> None:
        self.starts += 1
        command = [sys.executable, "-m", self.module, str(self.folder), self.address]
        with (self.folder / "driver.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *([self.storage] if self.storage else [])], stdout=log, stderr=log
            )

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.deaths[f"driver {len(self.deaths) + 1}"] = Death(time.time())

    def is_over(self, restart: bool = False) -> bool:
        """Return whether the sweep has ended; if asked, start a driver again that ended before its last trial."""
        assert self.process is not None
        code = self.process.poll()
        if code is None:
            return False
        if code and restart and self.starts < 10:
            self.start()
            return False
        if code:
            print((self.folder / "driver.log").read_text()[-3000:], file=sys.stderr)
        return True


class ObjectStore:
    """A server that speaks S3, behind a port that can refuse."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request otherwise
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.server.start()
        self.behind = self.server.get_host_and_port()
        self.listener: socket.socket | None = None
        self.connections: list[socket.socket] = []
        self.port = 0
        self.answer()
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "name",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        bucket = f"sweeps-{self.port}"  # all servers of a process share their buckets
        self.address = f"s3://{bucket}/chaos"
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)

    def answer(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def refuse(self) -> None:
        """Refuse connections, and break those that there are."""
        assert self.listener is not None
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            _close(connection)
        self.connections.clear()

    def records(self) -> list[str]:
        """Return the names of the records in it, whether it refuses or not."""
        host, port = self.behind
        endpoint = f"http://{host}:{port}"
        files = fsspec.filesystem("s3", endpoint_url=endpoint, skip_instance_cache=True)
        return [Path(name).name for name in files.find(f"{self.address}/records")]

    def stop(self) -> None:
        self.refuse()
        self.server.stop()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection(self.behind)
            self.connections += [here, there]
            for source, target in ((here, there), (there, here)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
    _close(source)
    _close(target)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()

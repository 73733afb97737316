"""The services of docker/compose.yaml as processes of this machine: its own commands, at ports that are free here."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import yaml

from tests.checkout import Checkout
from tests.servers import PostgresServer, free_port

COMPOSE = Path(__file__).resolve().parents[2] / "docker" / "compose.yaml"
PROGRAMS = {
    "ray": [sys.executable, "-m", "ray.scripts.scripts"],
    "mlflow": [sys.executable, "-m", "mlflow"],
    "python": [sys.executable],
    "mini": ["weed", "mini"],
}
SEAWEED = ("master", "filer", "volume")
"""Services of SeaweedFS below S3."""
AGENT = 52365
"""Port of the agent of a Ray node, which answers its health check."""
START_SECONDS = 180.0


class Services:
    """All services but for a second worker. Names and ports of the containers are replaced by those of this machine.

    Args:
        folder: for logs and the objects.
        database: in the place of the service of this name.
        checkout: what the nodes find at /work.
    """

    def __init__(self, folder: Path, database: PostgresServer, checkout: Checkout) -> None:
        self.folder, self.database, self.checkout = folder, database, checkout
        self.temporary = Path(tempfile.mkdtemp(prefix="dml-"))  # a short path, for Ray's sockets
        self.processes: list[subprocess.Popen[bytes]] = []
        self.services = yaml.safe_load(COMPOSE.read_text())["services"]
        self.ports = {name: free_port() for name in ("mlflow", "head", "jobs", "head-agent", "worker-agent")}
        self.ports |= dict(zip(("objects", *SEAWEED), ports_with_twins(1 + len(SEAWEED)), strict=True))
        self.secrets = {
            name: secrets.token_hex(16) for name in ("RAY_AUTH_TOKEN", "S3_ACCESS_KEY", "S3_SECRET_KEY")
        }
        self.secrets["POSTGRES_PASSWORD"] = database.password

    @property
    def here(self) -> dict[str, str]:
        """What compose.yaml says -> what it is on this machine."""
        return {
            "database:5432": f"127.0.0.1:{self.database.port}",
            "objects:8333": f"127.0.0.1:{self.ports['objects']}",
            "127.0.0.1:8333": f"127.0.0.1:{self.ports['objects']}",
            "mlflow:5000": f"127.0.0.1:{self.ports['mlflow']}",
            "localhost:5000": f"localhost:{self.ports['mlflow']}",
            "127.0.0.1:5000": f"127.0.0.1:{self.ports['mlflow']}",
            "--port=5000": f"--port={self.ports['mlflow']}",
            "head:6379": f"127.0.0.1:{self.ports['head']}",
            "--port=6379": f"--port={self.ports['head']}",
            "0.0.0.0": "127.0.0.1",
            "-dir=/data": f"-dir={self.folder / 'objects'}",
        }

    def environment(self, service: str) -> dict[str, str]:
        """Of a service's process."""
        given = {
            name: self._here(str(value)) for name, value in self.services[service]["environment"].items()
        }
        ours = {"RAY_memory_monitor_refresh_ms": "0"}
        ours |= dict.fromkeys(("RAY_TMPDIR", "TMPDIR"), str(self.temporary))
        return self.checkout.environment | ours | given

    def start(self, service: str, *more: str) -> None:
        """Start a service with further arguments; wait until its health check passes."""
        command = self._command(self.services[service]["command"]) + list(more)
        with (self.folder / f"{service}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    command, cwd=self.folder, env=self.environment(service), stdout=log, stderr=log
                )
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.healthy(service):
            log_text = (self.folder / f"{service}.log").read_text()
            assert self.processes[-1].poll() is None, log_text
            assert time.monotonic() < deadline, log_text
            time.sleep(0.5)

    def healthy(self, service: str) -> bool:
        """The service's own health check."""
        command = self._command(self.services[service]["healthcheck"]["test"][1:])
        agent = self.ports.get(f"{service}-agent")
        command = [word.replace(f"127.0.0.1:{AGENT}", f"127.0.0.1:{agent}") for word in command]
        if service == "database":
            command = [str(self.database.programs / command[0]), *command[1:], *self.database.address]
        done = subprocess.run(
            command, env=self.environment(service), capture_output=True, timeout=60, check=False
        )
        return done.returncode == 0

    def stop(self) -> None:
        """End what was started, the last first, each process by its id."""
        for process in reversed(self.processes):
            if process.poll() is None:
                for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                    child.kill()
            process.wait(timeout=60)
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _command(self, words: Sequence[str]) -> list[str]:
        first, *others = words
        return [*PROGRAMS.get(first, [first]), *(self._here(word) for word in others)]

    def _here(self, text: str) -> str:
        for name, value in self.secrets.items():
            text = text.replace(f"${{{name}:?set {name} in docker/.env}}", value)
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        names = "|".join(re.escape(there) for there in self.here)
        return re.sub(rf"({names})(?!\d)", lambda found: self.here[found[0]], text)


def ports_with_twins(count: int) -> list[int]:
    """Free ports below 30000 whose twins 10000 above, which SeaweedFS takes for gRPC, are free too."""
    taken = {connection.laddr.port for connection in psutil.net_connections("inet") if connection.laddr}
    return [port for port in range(21_000, 30_000) if not {port, port + 10_000} & taken][:count]

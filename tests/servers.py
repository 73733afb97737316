"""Servers that a test starts, stops and starts again: MLflow's, PostgreSQL's. Each ends by its own process id."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import fsspec
import psutil
import pytest

START_SECONDS = 180.0
S3_ACCESS = {
    "AWS_ACCESS_KEY_ID": "name",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}
POSTGRES = "postgres"
"""The user of Debian's package, since PostgreSQL refuses to run as root."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def s3_server(bucket: str, port: int = 0) -> Iterator[int]:
    """A server that speaks S3, at its port, with a bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    access = {"key": S3_ACCESS["AWS_ACCESS_KEY_ID"], "secret": S3_ACCESS["AWS_SECRET_ACCESS_KEY"]}
    files = fsspec.filesystem("s3", endpoint_url=s3_address(port), skip_instance_cache=True, **access)
    with suppress(FileExistsError):  # all servers of a process share their buckets
        files.mkdir(bucket)
    try:
        yield port
    finally:
        server.stop()


def s3_address(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@contextmanager
def s3_environment(port: int) -> Iterator[None]:
    """The environment lets a program into the server; fsspec forgets those that it knew."""
    settings = S3_ACCESS | {"AWS_ENDPOINT_URL": s3_address(port)}
    forget_all = fsspec.get_filesystem_class("s3").clear_instance_cache
    with patch.dict(os.environ, settings):
        forget_all()
        try:
            yield
        finally:
            forget_all()


class MlflowServer:
    """An MLflow server at one address over one store.

    Args:
        folder: for its log and its artifacts.
        store: the address of its database; None: a SQLite file in `folder`.
        prefix: of the path at which it answers, as behind a proxy: `/tools/mlflow`.
    """

    def __init__(self, folder: Path, store: str | None = None, prefix: str = "") -> None:
        self.prefix = prefix
        self.folder, self.store = folder, store or f"sqlite:///{folder / 'server.db'}"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}{prefix}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
        places = [
            "--backend-store-uri",
            self.store,
            "--artifacts-destination",
            str(self.folder / "artifacts"),
            *(["--static-prefix", self.prefix] if self.prefix else []),
        ]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *places], env=environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not answers(f"{self.uri}/health"):
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def stop(self) -> None:
        """Kill -9 of the server and the processes that it started."""
        if self.process is not None:
            for child in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                child.kill()
            self.process.wait(timeout=60)
            self.process = None


class PostgresServer:
    """A PostgreSQL server of Debian's package with a database `mlflow`; skips the test where it is not installed."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not found or (os.getuid() == 0 and shutil.which("runuser") is None):
            pytest.skip("PostgreSQL is not installed")
        self.programs = found[-1]
        self.folder = Path(tempfile.mkdtemp(prefix="dmlcore-postgres-"))
        if os.getuid() == 0:
            shutil.chown(self.folder, POSTGRES, POSTGRES)
        self.port, self.password = free_port(), secrets.token_hex(16)
        self.uri = f"postgresql+psycopg2://mlflow:{self.password}@127.0.0.1:{self.port}/mlflow"
        (self.folder / "password").write_text(self.password)
        login = ["--username=mlflow", f"--pwfile={self.folder / 'password'}", "--auth=scram-sha-256"]
        self._run("initdb", *login, "--no-sync", "-D", self.data)
        self.start()
        self._run("createdb", *self.address, "--username=mlflow", "mlflow")

    @property
    def address(self) -> list[str]:
        return ["--host=127.0.0.1", f"--port={self.port}"]

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", self.data, "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        command = self._as_user([str(self.programs / program), *arguments])
        environment = os.environ | {"PGPASSWORD": self.password}
        done = subprocess.run(
            command, cwd="/", env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @staticmethod
    def _as_user(command: Sequence[str]) -> list[str]:
        return ["runuser", "-u", POSTGRES, "--", *command] if os.getuid() == 0 else list(command)

"""The services of docker/compose.yaml in containers, by podman-compose, under a project name of their own."""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.checkout import ROOT, Checkout
from tests.servers import free_port

USER_ID = 1000
"""Of the image's user, and so the owner of the mounted checkout."""
START_SECONDS = 420.0
# Podman would have systemd run the health checks, which not every machine has: here the tests run them.
ENVIRONMENT = os.environ | {"DISABLE_HC_SYSTEMD": "true"}


def run(*command: str, seconds: float = 600.0, check: bool = True) -> str:
    """Return what a command printed; fail with it if it fails."""
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{(done.stdout + done.stderr)[-6000:]}"
    return done.stdout


def podman(*arguments: str, **more: Any) -> str:
    return run("podman", *arguments, **more)


class Containers:
    """The services, as README.md of docker/ says to start them.

    Args:
        checkout: what every node finds at /work; given to the image's user.
    """

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        for name in (
            "docker",
            "tests",
            "pyproject.toml",
            "constraints.txt",
            "README.md",
            "LICENSE",
            ".dockerignore",
        ):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, checkout.folder / name)
        run("chown", "--recursive", f"{USER_ID}:{USER_ID}", str(checkout.folder))
        self.project = f"dmlcore-test-{secrets.token_hex(3)}"
        self.mlflow_port, self.ray_port = free_port(), free_port()
        example = (checkout.folder / "docker" / "environment.example").read_text(encoding="utf-8")
        self.secrets = {
            name: secrets.token_hex(16) for name in re.findall(r"^(\w+)=$", example, re.MULTILINE)
        }
        filled = re.sub(
            r"^(\w+)=$", lambda found: f"{found[1]}={self.secrets[found[1]]}", example, flags=re.MULTILINE
        )
        more = {"MLFLOW_PORT": self.mlflow_port, "RAY_PORT": self.ray_port, "OBJECT_STORE_BYTES": 200_000_000}
        lines = "".join(f"{name}={value}\n" for name, value in more.items())
        (checkout.folder / "docker" / ".env").write_text(filled + lines)
        self.image_was_here = self.image_size() is not None

    def compose(self, *arguments: str, **more: Any) -> str:
        file = str(self.checkout.folder / "docker" / "compose.yaml")
        program = Path(sys.executable).with_name("podman-compose")
        found = str(program) if program.exists() else "podman-compose"
        return run(found, "--project-name", self.project, "--file", file, *arguments, **more)

    def build(self, folder: Path) -> None:
        """Build the image, with this machine's settings of pip mounted from `folder` meanwhile."""
        lent = f"--podman-build-args=--network=host {' '.join(pip_mounts(folder))}"
        self.compose(lent, "build", "head", seconds=3000.0)

    def start(self) -> None:
        """Start all services at once: Podman before 4.6 lets none wait until another is healthy."""
        self.compose("up", "--detach", "--no-build")
        self.wait_until_healthy()

    @property
    def image(self) -> str:
        return "localhost/dmlcore:0.2.0"

    def image_size(self) -> int | None:
        """Bytes; None: there is no such image."""
        found = json.loads(podman("image", "inspect", self.image, check=False) or "[]")
        return found[0]["Size"] if found else None

    def names(self, service: str | None = None) -> list[str]:
        """The containers of a service, or of all."""
        labels = {"project": self.project} | ({"service": service} if service else {})
        filters = [f"--filter=label=io.podman.compose.{key}={value}" for key, value in labels.items()]
        return sorted(podman("ps", "--all", *filters, "--format={{.Names}}").split())

    def inspect(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(podman("container", "inspect", name))
        return found

    def execute(
        self, service: str, *command: str, options: Sequence[str] = (), seconds: float = 900.0
    ) -> str:
        """As `podman-compose exec` does."""
        return podman("exec", *options, self.names(service)[0], *command, seconds=seconds)

    def driver(self, *arguments: str) -> str:
        options = ["--env", "RAY_ADDRESS=auto"]
        return self.execute("head", "python", "-m", "tests.containers.driver", *arguments, options=options)

    def healthy(self, name: str) -> bool:
        """The health check of compose.yaml, run now."""
        done = subprocess.run(
            ["podman", "healthcheck", "run", name],
            env=ENVIRONMENT,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode == 0

    def wait_until_healthy(self, service: str | None = None) -> None:
        deadline = time.monotonic() + START_SECONDS
        while sick := [name for name in self.names(service) if not self.healthy(name)]:
            logs = [podman("logs", "--tail=30", name, check=False) for name in sick]
            assert time.monotonic() < deadline, "\n".join([f"not healthy: {sick}", *logs])
            time.sleep(1.0)

    def kill(self, name: str) -> None:
        """End a container as a crash of it does, so that its restart policy counts."""
        os.kill(self.inspect(name)["State"]["Pid"], signal.SIGKILL)

    def stop(self, service: str) -> None:
        for name in self.names(service):
            podman("stop", "--time=0", name)

    def restart(self, service: str) -> None:
        """Start a service that was stopped; wait until it is healthy."""
        for name in self.names(service):
            podman("start", name)
        self.wait_until_healthy(service)

    def remove(self) -> None:
        """Remove containers, networks, volumes, and the image unless it was there before."""
        self.compose("down", "--volumes", "--timeout=1")
        if not self.image_was_here:
            podman("image", "rm", self.image)

    def left(self) -> list[str]:
        """What is still there of all that was made."""
        found = [f"container {name}" for name in self.names()]
        for kind in ("network", "volume", "pod"):
            named = podman(kind, "ls", "--format={{.Name}}").split()
            found += [f"{kind} {name}" for name in named if self.project in name]
        return found + ([f"image {self.image}"] if not self.image_was_here and self.image_size() else [])


def pip_mounts(folder: Path) -> list[str]:
    """Return the options of a build that give it this machine's settings of pip, and the files that they name.

    Args:
        folder: for a copy of the settings, which is removed with it: nothing of them is in a layer.
    """
    settings, mounts = {}, []
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in ("global", ":env:"):
            settings[key] = str(ast.literal_eval(value))
    for key, value in settings.items():
        for word in value.split():
            # The pages of an index on disk name its files by paths relative to the folder above.
            path = Path(word.removeprefix("file://"))
            path = path.parent if word.startswith("file://") else path
            if path.is_absolute() and path.exists():
                place = f"/mnt/pip/{len(mounts)}"
                mounts.append(f"--volume={path}:{place}:ro")
                settings[key] = settings[key].replace(f"{path}", place, 1)
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    (folder / "pip.conf").write_text(f"[global]\n{lines}")
    return [*mounts, f"--volume={folder / 'pip.conf'}:/etc/pip.conf:ro"]

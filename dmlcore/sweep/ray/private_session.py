"""Ray on this machine alone: nobody else, on the network or on the machine, can reach or enter it.

Whoever reaches Ray with its token runs code as the owner of the sweep. By default Ray listens on all interfaces, gives
its session folder mode 0777 and keeps one token for all sessions in a file of the home folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray._private import ray_constants
from ray._private.node import Node
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from dmlcore.sweep.file_store import ClusterError
from dmlcore.sweep.ray.allocator import allocator_settings

UNUSED = ("start_monitor", "start_api_server", "start_log_monitor")
"""Methods of Ray's Node that start the autoscaler, the dashboard's server and the copier of workers' output. A sweep on
one machine uses none of them; each takes seconds of a core to start, and ray.init waits for the second."""
LONGEST_SOCKET_PATH = 107
SESSION_LENGTH = len("/dmlcore-12345678/r/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")


@contextmanager
def private_session() -> Iterator[dict[str, Any]]:
    """Yield the options of ray.init for a session that is bound to loopback, with a folder and a token of its own.

    The token is in the environment of this process and its children alone, not in a file and not on a command line.
    Call ray.init and ray.shutdown inside.

    Raises:
        ClusterError: no folder for Ray's sockets can be made.
    """
    folder = _make_folder()
    changes: dict[str, str | None] = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_AUTH_TOKEN_PATH": None,
        # Despite its name: whether Ray looks for an address that other machines reach, where it is 0. Ray's processes
        # read the variable, this one has read it when Ray was imported.
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
        **allocator_settings(),
    }
    before = {name: os.environ.get(name) for name in changes}
    reachable = ray_constants.ENABLE_RAY_CLUSTER
    methods = {name: getattr(Node, name) for name in UNUSED}
    _apply(changes)
    ray_constants.ENABLE_RAY_CLUSTER = False
    for name in UNUSED:
        setattr(Node, name, lambda self, **settings: None)
    try:
        # Ray opens its folder to everybody: what keeps others out is the one above it.
        yield {"_temp_dir": str(folder / "r"), "_node_ip_address": "127.0.0.1", "include_dashboard": False}
    finally:
        for name, method in methods.items():
            setattr(Node, name, method)
        ray_constants.ENABLE_RAY_CLUSTER = reachable
        _apply(before)
        shutil.rmtree(folder, ignore_errors=True)


def _apply(environment: Mapping[str, str | None]) -> None:
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    Config.initialize("")  # Ray keeps the mode and the token that it read first
    AuthenticationTokenLoader.instance().reset_cache()


def _make_folder() -> Path:
    """Make a folder of mode 0700 whose path is short enough for sockets."""
    tried = []
    for base in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")):
        if len(os.fsencode(base)) + SESSION_LENGTH > LONGEST_SOCKET_PATH:
            tried.append(f"{base}: too long for a socket's path")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix="dmlcore-", dir=base))
        except OSError as error:
            tried.append(f"{base}: {error.strerror}")
    longest = LONGEST_SOCKET_PATH - SESSION_LENGTH
    raise ClusterError(
        f"Ray needs a folder for its sockets ({'; '.join(tried)}); set TMPDIR to a folder that can be written and "
        f"whose path has at most {longest} characters"
    )

"""The address of a Ray cluster, checked before Ray is asked: Ray itself waits for minutes and says little."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import warnings
from pathlib import Path

from dmlcore.sweep.file_store import ClusterError

ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})")
CONNECT_SECONDS, ANSWER_SECONDS = 5, 20


def check_address(address: str) -> None:
    """Check that a Ray cluster answers at `address`, within 25 s.

    Raises:
        ClusterError: it is not HOST:PORT or `auto`, or no cluster answers there.
    """
    if address.startswith("ray://"):
        raise ClusterError(
            f"the address of the cluster must be HOST:PORT or auto, got {address!r}; from outside the cluster use "
            "`ray job submit` (docs/how-to/cluster.md)"
        )
    _warn_of_open_doors()
    if address == "auto":
        return
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise ClusterError(
            f"the address of the cluster must be HOST:PORT or auto, got {address!r}; set RAY_ADDRESS or "
            "sweep.cluster.address"
        )
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: {error}; start its head node, correct RAY_ADDRESS or "
            "sweep.cluster.address, or unset them to run on this machine"
        ) from error
    _ask(address)


def _ask(address: str) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"what listens at {address} does not answer as a Ray cluster within {ANSWER_SECONDS} s; correct "
            "RAY_ADDRESS or sweep.cluster.address"
        ) from error
    if done.returncode:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise ClusterError(
            f"the Ray cluster at {address} refuses this machine: {last}; it needs the same version of Ray, "
            "RAY_AUTH_MODE and RAY_AUTH_TOKEN here and there"
        )


def _warn_of_open_doors() -> None:
    """Warn where others can run code on the cluster as its owner."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        warnings.warn(
            "RAY_AUTH_MODE=disabled: whoever reaches this cluster runs code as you; set RAY_AUTH_MODE=token on every "
            "node (docs/how-to/cluster.md)",
            stacklevel=3,
        )
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given) if given else Path(os.environ.get("HOME", "/")) / ".ray" / "auth_token"
    if os.environ.get("RAY_AUTH_TOKEN") or not path.is_file():
        return
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        warnings.warn(
            f"other users of this machine can read Ray's token in {path}, and with it run code as you; run "
            "chmod 600 on it",
            stacklevel=3,
        )

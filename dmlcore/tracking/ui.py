"""Serve MLflow's pages for a study on this machine, for its owner alone.

Without a login every user of the machine may read, change and delete the runs, and read any file of the owner: whoever
creates an experiment chooses the folder of its artifacts, and may replace it by a link.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

USER = "dmlcore"


def serve(store: str, port: int, announce: Callable[[str], None]) -> int:
    """Run `mlflow server` with basic authentication on 127.0.0.1 until it is interrupted.

    Args:
        store: address of the database.
        port: of the pages.
        announce: gets the address, user and password in one line.

    Returns:
        The server's exit status.
    """
    with tempfile.TemporaryDirectory(prefix="dmlcore-ui-") as folder:  # of mode 0700
        password = secrets.token_urlsafe(16)
        announce(f"http://127.0.0.1:{port}  user: {USER}  password: {password}")
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--x-frame-options", "DENY"]
        # By default names of private addresses are answered too. Origins other than localhost are refused by default.
        command += ["--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"]
        process = subprocess.Popen(command, env=_environment(store, Path(folder), password))
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return process.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            signal.signal(signal.SIGTERM, previous)
            process.terminate()
            process.wait()


def _environment(store: str, folder: Path, password: str) -> dict[str, str]:
    """Return the server's environment, which no other user can read, unlike a command line.

    Users and password are new at each start, in a database of their own: a forgotten password locks nobody out.
    """
    config = folder / "auth.ini"
    database = f"sqlite:///{folder / 'users.db'}".replace("%", "%%")
    config.write_text(f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = {database}\n")
    return os.environ | {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        "MLFLOW_BACKEND_STORE_URI": store,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }

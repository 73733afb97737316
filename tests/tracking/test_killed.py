"""Killed where it hurts: within MLflow's migrations, and while a model is uploaded."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from dmlcore.tracking.store import Store

pytestmark = pytest.mark.filterwarnings("ignore")
MAKE = """
import os, signal, sys, threading, time
from pathlib import Path
from dmlcore.tracking.store import Store

def size():
    try:
        return max(path.stat().st_size for path in Path(sys.argv[1]).glob("*mlflow.db*"))
    except (FileNotFoundError, ValueError):
        return -1

def kill():
    while size() <= int(sys.argv[2]):
        pass
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill, daemon=True).start()
Store(f"sqlite:///{sys.argv[1]}/mlflow.db", "dmlcore/t", None).prepare()
"""


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_kill_within_the_migrations_leaves_no_store_that_is_refused(tmp_path, size):
    done = subprocess.run([sys.executable, "-c", MAKE, tmp_path, f"{size}"], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    left = [path.name for path in tmp_path.iterdir()]
    assert left
    assert "mlflow.db" not in left
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    Store(uri, "dmlcore/t", None).prepare()
    assert MlflowClient(tracking_uri=uri).get_experiment_by_name("dmlcore/t") is not None
    assert not list(tmp_path.glob(".mlflow.db*"))


def test_an_empty_file_becomes_a_store_and_a_store_stays(tmp_path):
    (tmp_path / "mlflow.db").touch()
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    Store(uri, "a", None).prepare()
    Store(uri, "b", None).prepare()
    assert MlflowClient(tracking_uri=uri).get_experiment_by_name("a") is not None
    assert not list(tmp_path.glob(".mlflow.db*"))

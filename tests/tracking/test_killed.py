"""Killed where it hurts: within MLflow's migrations, and while a model is uploaded."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.tracking.store import Store
from tests.cli.trained import KEY, trained_checkout

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


def publish(root):
    return CliRunner().invoke(app, ["publish", KEY, "--register", "m", "--study", str(root)])


def publish_until(moment, root):
    """Publish, and be killed right after this call of MLflow's client, or when the first file of the model is there."""

    def killed(client, *arguments, **named):
        method(client, *arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    def watch():
        while not any(path.is_file() for path in (root / "state" / "mlflow-artifacts").rglob("artifacts/*")):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "first file":
        threading.Thread(target=watch, daemon=True).start()
    else:
        method = getattr(MlflowClient, moment)
        setattr(MlflowClient, moment, killed)
    publish(root)


@pytest.fixture(scope="module")
def forks():
    """Starts processes that have imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tracking.test_killed", "dmlcore.tracking.models", "mlflow.pyfunc"])
    return context


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = trained_checkout(tmp_path_factory.mktemp("checkout"), "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield root


@pytest.mark.parametrize(
    "moment",
    [
        "create_logged_model",
        "first file",
        "log_model_artifacts",
        "finalize_logged_model",
        "log_outputs",
        "create_registered_model",
        "create_model_version",
    ],
)
def test_a_publish_that_is_killed_and_repeated_makes_one_model_and_one_version(trained, forks, moment):
    client = MlflowClient(f"sqlite:///{trained / 'state' / 'mlflow.db'}")
    process = forks.Process(target=publish_until, args=(moment, trained))
    process.start()
    process.join(timeout=300)
    assert process.exitcode == -signal.SIGKILL

    done = publish(trained)
    assert done.exit_code == 0, done.output
    assert "registered as models:/m/1" in done.output
    (run,) = client.search_runs(["1"])
    (model,) = client.search_logged_models(["1"])
    (version,) = client.search_model_versions("name = 'm'")
    assert str(model.status) == "READY"
    assert version.source == model.artifact_location
    assert [output.model_id for output in client.get_run(run.info.run_id).outputs.model_outputs] == [
        model.model_id
    ]

    client.delete_registered_model("m")
    client.delete_logged_model(model.model_id)
    client.delete_run(run.info.run_id)

"""`dmlcore ui`: its owner gets in with the printed password, another user of the machine does not."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from dmlcore import extras
from dmlcore.cli import app
from tests.servers import START_SECONDS, answers, free_port
from tests.tracking.test_sync import SWEEP

NOBODY = 65534
ATTACK = """
import encodings.idna, json, os, pathlib, sys, tempfile, urllib.error, urllib.request
urllib.request.build_opener()
base, secret, user = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
if user != os.getuid():
    os.setgid(user)
    os.setuid(user)

def post(path, **values):
    request = urllib.request.Request(f"{base}/api/2.0/mlflow/{path}", json.dumps(values).encode(),
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=30))

try:
    own = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    own.chmod(0o755)
    experiment = post("experiments/create", name=own.name, artifact_location=str(own))["experiment_id"]
    run = post("runs/create", experiment_id=experiment)["run"]["info"]
    folder = pathlib.Path(run["artifact_uri"].removeprefix("file://"))
    folder.parent.mkdir(parents=True)
    folder.symlink_to(secret.parent)
    print(urllib.request.urlopen(f"{base}/get-artifact?run_id={run['run_id']}&path={secret.name}").read())
except urllib.error.HTTPError as error:
    print("refused", error.code)
"""
"""Reads a file of the server's owner by a link in place of an artifact folder: it can where there is no login."""


@pytest.fixture(scope="module")
def ui(tmp_path_factory):
    """A running `dmlcore ui`: its address, its password, its process."""
    if find_spec("flask_wtf") is None:
        pytest.skip("Flask-WTF is not installed")
    study = tmp_path_factory.mktemp("study")
    (study / "params.yaml").write_text(yaml.safe_dump({"sweep": SWEEP}))
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    command = [
        sys.executable,
        "-c",
        "from dmlcore.cli import app; app()",
        "ui",
        "--study",
        str(study),
        "--port",
        str(port),
    ]
    with (study / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + START_SECONDS
    while not answers(f"http://127.0.0.1:{port}/health"):
        assert process.poll() is None, (study / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (password,) = re.findall(r"password: (\S+)", (study / "log").read_text())
    yield f"http://127.0.0.1:{port}", password, process
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    assert process.wait(timeout=START_SECONDS) == 0
    assert not psutil.wait_procs(children, timeout=START_SECONDS)[1]


def status(address, password=None, **headers):
    if password is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"dmlcore:{password}".encode()).decode()
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:  # the answer, whose socket would stay open
            return error.code


@pytest.mark.slow
def test_the_owner_gets_in_and_nobody_else(ui):
    address, password, _ = ui
    search = f"{address}/api/2.0/mlflow/experiments/search?max_results=10"
    assert status(search, password) == 200
    assert status(f"{address}/", password) == 200
    for path in (
        "/",
        "/api/2.0/mlflow/experiments/search?max_results=10",
        "/ajax-api/2.0/mlflow/experiments/search?max_results=10",
        "/get-artifact?run_id=0&path=a",
        "/graphql",
        "/api/3.0/mlflow/traces/search",
        "/api/2.0/mlflow-artifacts/artifacts",
    ):
        assert status(address + path) == 401, path
        assert status(address + path, "password1234") == 401, path


@pytest.mark.slow
def test_another_user_of_the_machine_reads_no_file_of_the_owner(ui, tmp_path):
    (tmp_path / "secret.txt").write_text("hidden")
    user = NOBODY if os.getuid() == 0 else os.getuid()
    address, _, _ = ui
    command = [sys.executable, "-c", ATTACK, address, str(tmp_path / "secret.txt"), str(user)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "refused 401\n", done.stdout + done.stderr


@pytest.mark.slow
def test_the_password_is_in_no_file_and_on_no_command_line_that_others_can_read(ui):
    _, password, process = ui
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    assert len(family) > 1
    for member in family:
        assert password not in Path(f"/proc/{member.pid}/cmdline").read_text()
        assert Path(f"/proc/{member.pid}/environ").stat().st_mode & 0o077 == 0
    environment = dict(
        line.split("=", 1)
        for line in Path(f"/proc/{family[1].pid}/environ").read_text().split("\0")
        if "=" in line
    )
    folder = Path(environment["MLFLOW_AUTH_CONFIG_PATH"]).parent
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_pages_of_other_origins_are_refused(ui):
    address, password, _ = ui
    search = f"{address}/api/2.0/mlflow/experiments/search?max_results=10"
    assert status(search, password, Host="attacker.example") == 403
    request = {"Origin": "https://attacker.example", "Content-Type": "application/json"}
    created = urllib.request.Request(
        f"{address}/api/2.0/mlflow/experiments/create", json.dumps({"name": "x"}).encode(), request
    )
    created.add_header("Authorization", "Basic " + base64.b64encode(f"dmlcore:{password}".encode()).decode())
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(created, timeout=30)
    with caught.value as error:
        assert error.code == 403


def test_what_is_missing_and_a_server_are_said_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"sweep": SWEEP}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:5000")
    done = CliRunner().invoke(app, ["ui", "--study", str(tmp_path)])
    assert done.exit_code == 2
    assert (
        "MLFLOW_TRACKING_URI names a server, which has pages of its own: http://***@127.0.0.1:5000"
        in done.output
    )
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "flask_wtf" else object())
    done = CliRunner().invoke(app, ["ui", "--study", str(tmp_path)])
    assert done.exit_code == 2
    assert (
        "`dmlcore ui` needs flask_wtf, which is not installed; run pip install 'dmlcore[ui]'" in done.output
    )

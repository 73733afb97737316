"""A sweep operated from another process: what it shows, and what it does when asked. One real sweep for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.cli.options import WRONG_INPUT
from dmlcore.sweep.control import SHOWN, Control, LiveStatus, LiveTrial, SweepStatus
from dmlcore.sweep.execution.guards import sweep_lock
from tests.faults.sabotage import wait_for
from tests.sweep.operated import gate, operated

ROOT = Path(__file__).resolve().parents[2]
KEY = "0123456789abcdef-01234567"


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def status_of(folder):
    return json.loads(call("status", "--study", folder, "--json").output)


def python(*arguments, log):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_is_operated_from_another_process(tmp_path, small_data):
    folder, prepared = tmp_path / "study", small_data.folder.parent
    folder.mkdir()
    study = operated(folder, prepared)
    first, dying, third, fourth, *rest = (trial.key for trial in study.trials)
    with (tmp_path / "driver.log").open("wb") as log:
        driver = python("-m", "tests.sweep.operated", folder, prepared, log=log)
    try:
        gate(folder, "first").pid()
        gate(folder, "third").pid()
        wait_for(lambda: len(status_of(folder)["running"]) == 2 and status_of(folder)["failed"])
        check_status(folder, driver.pid, first, dying, third, [fourth, *rest])
        gate(folder, "first").open()
        gate(folder, "third").open()
        assert driver.wait(timeout=200) == 0, (tmp_path / "driver.log").read_text()
    finally:
        with suppress(ProcessLookupError):
            driver.kill()
        driver.wait(timeout=60)
    assert status_of(folder)["state"] == "idle"


def check_status(folder, pid, first, dying, third, queue):
    time.sleep(1.2)  # the status is written once a second
    found = status_of(folder)
    assert (found["state"], found["pid"], found["total"]) == ("running", pid, 6)
    running = {trial["key"]: trial for trial in found["running"]}
    assert running.keys() == {first, third}
    assert (running[first]["epoch"], running[first]["epochs"]) == (2, 4)
    assert running[first]["seconds_left"] >= 0
    assert running[first]["seconds"] > 0
    assert running[first]["node"] == os.uname().nodename
    assert found["queued"] == 3
    assert [trial["key"] for trial in found["next"]] == queue
    assert [trial["key"] for trial in found["failures"]] == [dying]
    shown = call("status", "--study", folder).output
    assert f"RUNNING {first}" in shown
    assert "epoch 2/4" in shown
    assert f"FAILED {dying}" in shown
    assert "process died" in shown


def holder(state, then):
    """A process that shows a sweep under its lock, and then sleeps or ends."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from dmlcore.sweep.control import Control\n"
        "from dmlcore.sweep.execution.guards import sweep_lock\n"
        f"state = Path({str(state)!r})\n"
        f"with sweep_lock(state), Control(state).shown():\n    {then}\n"
    )
    return python("-c", code, log=subprocess.DEVNULL)


def test_a_killed_driver_is_told_from_one_that_runs(tmp_path):
    assert status_of(tmp_path)["state"] == "idle"
    driver = holder(tmp_path / "state", "time.sleep(100)")
    wait_for(lambda: status_of(tmp_path)["state"] == "running")
    driver.send_signal(signal.SIGKILL)
    driver.wait(timeout=20)
    assert status_of(tmp_path)["state"] == "killed"
    assert f"process {driver.pid}" in call("status", "--study", tmp_path).output
    with sweep_lock(tmp_path / "state"):  # as `dmlcore sync` does beside the file of a killed driver
        assert status_of(tmp_path)["state"] == "killed"
        with Control(tmp_path / "state").shown():
            assert status_of(tmp_path)["state"] == "running"
        assert status_of(tmp_path)["state"] == "starting"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{" * 10_000, '{"pid": 1}', '{"pid": -1, "host": "h", "started": 0}', "\xff"],
)
def test_a_status_that_is_none_is_refused_in_a_line(tmp_path, content):
    folder = tmp_path / "state" / "control"
    folder.mkdir(parents=True)
    (folder / "status.json").write_bytes(content.encode("latin-1"))
    result = call("status", "--study", tmp_path)
    assert result.exit_code == WRONG_INPUT
    assert "is not the status of a sweep" in result.output
    assert result.output.count("\n") == 1


def test_names_from_the_status_cannot_move_the_cursor(tmp_path):
    control = Control(tmp_path / "state")
    with sweep_lock(tmp_path / "state"), control.shown():
        trial = LiveTrial(key=KEY, name="a\x1b[2Jb\nc", epochs=3, started=0.0)
        control.write(SweepStatus(pid=os.getpid(), host="h", started=0.0, running=[trial]))
        shown = call("status", "--study", tmp_path).output
    assert "\x1b" not in shown
    assert f"RUNNING {KEY} a [2Jb c: epoch 0/3" in shown


def test_seconds_left_follow_from_the_epochs_of_the_trial_itself():
    trial = LiveTrial(key=KEY, name="n", epochs=10, started=100.0)
    assert trial.seconds_left(200.0) is None
    # resumed: epochs 4 to 6 in 40 s, so 4 more take 80 s, of which 15 s have passed
    resumed = trial.model_copy(
        update={"first_epoch": 4, "first_report": 110.0, "epoch": 6, "last_report": 150.0}
    )
    assert resumed.seconds_left(165.0) == pytest.approx(65.0)
    assert resumed.seconds_left(1000.0) == 0.0


def test_a_status_stays_small_however_many_trials_wait(tmp_path):
    control = Control(tmp_path)
    live = LiveStatus(
        control, 5000, [(f"{number:016x}-01234567", f"trial {number}") for number in range(5000)]
    )
    for number in range(100):
        live.start(f"{number:016x}-01234567", "n", 3)
        live.end(f"{number:016x}-01234567", "n", None)
    live.write()
    found = control.read()
    assert (found.queued, found.failed, len(found.failures)) == (4900, 100, SHOWN)
    assert found.next[0].name == "trial 100"
    assert (tmp_path / "control" / "status.json").stat().st_size < 10_000


def test_a_disk_that_refuses_the_status_ends_no_sweep(tmp_path):
    (tmp_path / "control").write_text("a file in the place of the folder")
    LiveStatus(Control(tmp_path), 1, []).write()

"""A sweep operated from another process: what it shows, and what it does when asked. One real sweep for all."""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.cli.options import INCOMPLETE, WRONG_INPUT
from dmlcore.records import RecordFolder
from dmlcore.sweep.control import Control, LiveTrial, SweepStatus
from dmlcore.sweep.dry_run.preview import preview
from dmlcore.sweep.execution.guards import SweepHaltedError, sweep_lock
from dmlcore.sweep.execution.trial_log import CUT, LIMIT_BYTES, kept_output, log_file
from dmlcore.sweep.execution.worker import execute, make_record
from dmlcore.sweep.live_status import SHOWN, LiveStatus
from dmlcore.sweep.plan import CANCELLED
from dmlcore.sweep.ray.remote_worker import LogSync, download_log
from dmlcore.sweep.ray.shared_storage import SharedStorage
from dmlcore.sweep.ray.signals import StopSignals
from dmlcore.sweep.run import SweepFolders, run_sweep
from dmlcore.training.run import run_trial
from dmlcore.training.store import TrialStore
from tests.cli.study import SWEEP
from tests.faults.sabotage import wait_for
from tests.memory_tracker import MemoryTracker
from tests.sweep.operated import HALTED, gate, operated
from tests.sweep.sweeps import plan_of, sweep_config, worker_context

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
        check_logs(folder, first, dying)
        cancel_and_drain(folder, third, fourth)
        gate(folder, "first").open()
        gate(folder, "third").open()
        assert driver.wait(timeout=200) == HALTED, (tmp_path / "driver.log").read_text()
    finally:
        with suppress(ProcessLookupError):
            driver.kill()
        driver.wait(timeout=60)
    assert status_of(folder)["state"] == "idle"
    check_ended(study, first, dying, third, fourth, rest)
    assert "drained by" in (tmp_path / "driver.log").read_text()


def cancel_and_drain(folder, third, fourth):
    assert call("cancel", third, "0", "--study", folder).exit_code == WRONG_INPUT
    shown = call("cancel", third, fourth[:12], "--study", folder).output
    assert f"{third} small" in shown
    assert "stops at its next epoch" in shown
    assert "does not start" in shown
    wait_for(lambda: status_of(folder)["stopped"] == 1)
    assert call("drain", "--study", folder).exit_code == 0
    wait_for(lambda: status_of(folder)["halted"])
    found = status_of(folder)
    assert (found["stopped"], found["queued"], len(found["running"])) == (1, 2, 2)


def check_ended(study, first, dying, third, fourth, rest):
    """The one that ran is finished, the cancelled ones are stopped for good, those held back have no record."""
    records = {record.trial_key: record for record in study.records.all()}
    assert {key: record.status for key, record in records.items()} == {
        first: "finished",
        dying: "failed",
        third: "stopped",
        fourth: "stopped",
    }
    user = f"cancelled by {getpass.getuser()} on {os.uname().nodename}"
    assert records[third].error == user
    assert len(records[third].curve) == 3  # the gate is in epoch 1, so it stops at its report of epoch 2
    assert records[fourth].error == f"{user}, before it began"
    assert [trial.key for trial in plan_of(study.config, study.folders).missing] == [dying, *rest]
    assert dict(zip(study.table()["trial_key"], study.table()["status"], strict=True)) == {
        key: records[key].status if key in records else "missing"
        for key in (first, dying, third, fourth, *rest)
    }


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


def check_logs(folder, first, dying):
    """The epochs of a trial that runs, and the last words of one that was killed."""
    result = call("logs", first[:10], "--study", folder)
    assert "epoch 2/4  " in result.output
    assert "validation/map_at_r" in result.output
    killed = call("logs", dying, "--study", folder).output
    assert "the last words\n" in killed
    assert "a warning [2J\n" in killed
    assert "epoch 0/4" in killed
    assert "epoch 0/4" not in call("logs", dying, "--study", folder, "--lines", 2).output


def holder(state, then):
    """A process that shows a sweep under its lock, and then sleeps or ends."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from dmlcore.sweep.control import Control\n"
        "from dmlcore.sweep.execution.guards import SweepHaltedError, sweep_lock\n"
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


WRITER = """
import os, sys, warnings
from pathlib import Path
from dmlcore.sweep.execution.trial_log import kept_output

with kept_output(Path(sys.argv[1])):
    print("from Python")
    os.write(1, b"from C\\n")
    warnings.warn("from a library")
    if sys.argv[2] == "raises":
        raise ZeroDivisionError("the reason")
print("after")
"""


def test_the_output_of_a_block_is_kept_that_of_c_too_and_a_traceback(tmp_path):
    file = log_file(tmp_path, KEY)
    for end in ("raises", "returns"):
        with (tmp_path / end).open("wb") as own:
            python("-c", WRITER, file, end, log=own).wait(timeout=100)
    first, second = file.read_text().split("--- 20")[1:]
    for attempt in (first, second):
        assert "from Python\nfrom C\n" in attempt
        assert "UserWarning: from a library" in attempt
        assert "after" not in attempt
    assert "ZeroDivisionError: the reason" in first
    assert "ZeroDivisionError" not in second
    assert (tmp_path / "returns").read_text() == "after\n"


def test_output_beyond_the_limit_loses_its_older_part(tmp_path):
    file = log_file(tmp_path, KEY)
    with kept_output(file):
        for number in range(40_000):
            os.write(1, b"line %d %s\n" % (number, b"x" * 50))
    lines = file.read_bytes().splitlines()
    assert file.stat().st_size <= LIMIT_BYTES
    assert lines[0] == CUT.strip()
    assert lines[-1].startswith(b"line 39999 x")
    assert lines[1].startswith(b"line ")


def test_a_trial_runs_where_its_output_cannot_be_kept(tmp_path, capfd):
    log_file(tmp_path, KEY).parent.mkdir()
    log_file(tmp_path, KEY).symlink_to(tmp_path / "elsewhere")
    with kept_output(log_file(tmp_path, KEY)):
        os.write(1, b"seen\n")
    assert not (tmp_path / "elsewhere").exists()
    assert "not kept" in capfd.readouterr().err


def test_output_comes_back_from_a_node_and_to_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("DMLCORE_SCRATCH", str(tmp_path / "scratch"))
    storage, state = SharedStorage(f"file://{tmp_path}/shared"), tmp_path / "study" / "state"
    for attempt in (b"one\n", b"two\n"):
        with LogSync(KEY, state, storage) as log, kept_output(log.file):
            os.write(1, attempt)
        log.file.unlink()  # the next attempt is on another node
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "params.yaml").write_text(
        yaml.safe_dump({"sweep": SWEEP | {"cluster": {"storage": storage.address}}})
    )
    for _ in range(2):  # from the storage while it runs, then from the study
        shown = call("logs", KEY, "--study", tmp_path / "study").output
        assert [line for line in shown.splitlines() if not line.startswith("---")] == ["one", "two"]
        download_log(SimpleNamespace(key=KEY), storage, state, done=True)
        assert storage.names("logs") == []


def test_logs_of_what_is_no_trial_are_refused(tmp_path):
    (tmp_path / "state" / "logs").mkdir(parents=True)
    for name in (KEY, KEY.replace("0", "1", 1), "secret"):
        (tmp_path / "state" / "logs" / f"{name}.log").write_text("x\n")
    for wrong in ("../../etc/passwd", "secret", "f", ""):
        result = call("logs", wrong, "--study", tmp_path)
        assert result.exit_code == WRONG_INPUT, result.output
        assert "must begin the key" in result.output
    assert call("logs", KEY[:3], "--study", tmp_path).output == "x\n"


def test_without_a_sweep_there_is_nothing_to_ask(tmp_path):
    for arguments in (["drain"], ["cancel", KEY]):
        result = call(*arguments, "--study", tmp_path)
        assert result.exit_code == WRONG_INPUT
        assert "no sweep of" in result.output
        assert not (tmp_path / "state").exists()


def test_requests_to_an_earlier_sweep_do_not_meet_the_next(tmp_path):
    control = Control(tmp_path)
    control.request_drain("a")
    control.request_cancel(KEY, "b\x1b\nc")
    (control.folder / "cancel" / "no key").touch()
    assert (control.drain_requested(), control.cancel_requests()) == ("a", {KEY: "b "})
    with control.shown():
        assert (control.drain_requested(), control.cancel_requests()) == (None, {})


def test_a_cancelled_trial_keeps_its_checkpoint_and_is_complete(tmp_path, small_data):
    study = operated(tmp_path / "study", small_data.folder.parent)
    trial = study.trials[0]
    signals = StopSignals(SharedStorage(f"file://{tmp_path}/signals"))

    def report(epoch):
        if epoch.epoch == 2:
            signals.cancel(trial.key, "cancelled by somebody")
        signals.check(trial)

    context = worker_context(study.folders, run=partial(run_trial, checkpoint_seconds=0.0))
    record = execute(trial, context, report)
    assert (record.status, record.error, record.error_type) == ("stopped", "cancelled by somebody", CANCELLED)
    assert trial.is_complete(record)
    assert TrialStore(trial.store_folder).path("last").is_file()
    signals.remove()
    signals.check(trial)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_spent_budget_lets_the_first_in_the_queue_end_and_starts_no_other(tmp_path, small_data):
    """Without `max_concurrent` Tune holds all trials ready: those that have not begun must leave nothing.

    The budget is a third of a second, less than a trial takes: only those that begin at once can run. Which of these
    do, where their workers start unevenly, is open.
    """
    folders = SweepFolders(tmp_path / "study", small_data.folder.parent)
    losses = {name: {"loss": {"name": name}} for name in ("contrastive", "triplet")}
    seeds = list(range((os.cpu_count() or 1) + 2))
    changes = {"losses": losses, "seeds": seeds, "regularizers": [[]]}
    config = sweep_config(**changes, priority=[{"loss": "triplet"}], budget_hours=1.0e-4)
    tracker = MemoryTracker()
    with pytest.raises(SweepHaltedError, match=re.escape("budget of 0.0001 hours")):
        run_sweep(config, folders, tracker)
    records = RecordFolder(folders.records).all()
    plan = plan_of(config, folders)
    assert {record.trial_key for record in records} <= {trial.key for trial in plan.trials[: os.cpu_count()]}
    assert {(record.status, record.labels["loss"]) for record in records} == {("finished", "triplet")}
    assert tracker.records.keys() == {record.trial_key for record in records}
    again, left = MemoryTracker(), 2 * len(seeds) - len(records)
    with pytest.raises(SweepHaltedError, match=f"{left} trials are left"):
        run_sweep(config, folders, again)
    assert not again.started
    lines = "\n".join(preview(plan, config, folders.state / "storage"))
    assert "budget of 0.0001 hours" in lines


def test_trials_that_failed_or_were_cancelled_are_run_again_if_asked(tmp_path, small_data):
    study = operated(tmp_path / "study", small_data.folder.parent)
    trials = study.trials[:4]
    records = [
        make_record(trials[0], status="failed", error="x"),
        make_record(trials[1], status="failed", error="y"),
        make_record(trials[2], status="stopped", error="cancelled by z", error_type=CANCELLED),
        make_record(trials[3], status="finished"),
    ]
    for record in records:
        study.records.write(record)
    folder = study.folders.study

    def left():
        return [trial.key for trial in trials if study.records.read(trial.key) is not None]

    keys = [trial.key for trial in trials]
    for wrong in ([], [keys[0], "--all-failed"], [keys[0], keys[3]]):
        assert call("retry", *wrong, "--study", folder).exit_code == WRONG_INPUT
    with sweep_lock(study.folders.state):
        assert call("retry", keys[0], "--study", folder).exit_code == INCOMPLETE
    assert left() == keys
    assert keys[2] in call("retry", keys[2][:13], "--study", folder).output
    assert left() == [keys[0], keys[1], keys[3]]
    study.records.write(records[2])
    assert call("retry", keys[2], "--study", folder).exit_code == 0
    assert call("retry", "--all-failed", "--study", folder).exit_code == 0
    assert left() == [keys[3]]
    assert sorted(path.suffix for path in study.folders.records.glob("*.retried*")) == [
        *[".retried"] * 3,
        ".retried2",
    ]


def test_the_stage_ends_as_interrupted_where_the_sweep_was_halted(tmp_path, capsys, monkeypatch):
    specification = importlib.util.spec_from_file_location("stage", ROOT / "pipeline" / "sweep.py")
    stage = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(stage)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"sweep": SWEEP | {"tracker": "none"}}))

    def halted(*arguments):
        raise SweepHaltedError("drained by a on b; what ran has ended, 3 trials are left")

    monkeypatch.setattr(stage, "run_sweep", halted)
    assert stage.main(tmp_path) == HALTED
    assert "sweep: halted: drained by a on b" in capsys.readouterr().out


def test_looking_at_a_sweep_imports_neither_ray_nor_torch(tmp_path):
    code = (
        "import sys; from typer.testing import CliRunner; from dmlcore.cli import app\n"
        f"assert CliRunner().invoke(app, ['status', '--study', {str(tmp_path)!r}]).exit_code == 0\n"
        "sys.exit(bool({'ray', 'torch', 'mlflow', 'optuna'} & sys.modules.keys()))"
    )
    assert python("-c", code, log=subprocess.DEVNULL).wait(timeout=100) == 0

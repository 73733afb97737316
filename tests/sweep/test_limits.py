"""Limits of a trial and of a sweep: what breaks one ends, is recorded with its reason, and takes nothing else along."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dmlcore.core.io import write_atomically
from dmlcore.records import RecordFolder
from dmlcore.sweep.dry_run.disk import disk_estimate, folder_bytes, over_budget
from dmlcore.sweep.dry_run.preview import preview
from dmlcore.sweep.execution.guards import Limits, enforce_limits, pop_kill_reason
from dmlcore.sweep.execution.worker import execute
from dmlcore.sweep.run import SweepFolders, record_lost, run_sweep
from tests.disks import fill, mounted
from tests.memory_tracker import MemoryTracker
from tests.small import TRIAL
from tests.sweep.sweeps import not_called, plan_of, run_here, sweep_config, worker_context

SPAWN = multiprocessing.get_context("spawn")
ENDLESS = TRIAL["train"] | {"epochs": 100_000}


@pytest.fixture
def folders(tmp_path, small_data):
    return SweepFolders(tmp_path / "study", small_data.folder.parent)


def endless(**changes):
    trial = {key: value for key, value in TRIAL.items() if key not in ("dataset", "loss")} | {
        "train": ENDLESS
    }
    return sweep_config(**({"trial": trial, "regularizers": [[]]} | changes))


def hang(kill_reason_file: str) -> None:
    """Hold the interpreter in C, as a defect of a library would: no signal handler and no thread of Python runs."""
    import re

    with enforce_limits(Limits(seconds=1.0), Path(kill_reason_file)):
        re.match(r"(a+)+$", "a" * 60 + "b")


def hoard(kill_reason_file: str) -> None:
    blocks = []
    with enforce_limits(Limits(memory_bytes=300_000_000), Path(kill_reason_file)):
        while True:
            blocks.append(bytearray(b"\1" * 10_000_000))


def hoard_in_a_child(kill_reason_file: str) -> None:
    """As another rank of a trial would; it ends when this process does."""
    code = "import sys; block = b'1' * 400_000_000; sys.stdin.read()"
    with enforce_limits(Limits(memory_bytes=300_000_000), Path(kill_reason_file)):
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE).wait()


def end_of(target, *arguments):
    process = SPAWN.Process(target=target, args=arguments)
    process.start()
    process.join(60)
    assert not process.is_alive()
    return process.exitcode


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize(
    ("target", "words"),
    [(hang, "time limit"), (hoard, "memory limit"), (hoard_in_a_child, "memory limit")],
)
def test_what_breaks_a_limit_is_killed_and_the_reason_given_once(tmp_path, target, words):
    file = tmp_path / "reason"
    assert end_of(target, str(file)) == -signal.SIGKILL
    assert words in (pop_kill_reason(file) or "")
    assert pop_kill_reason(file) is None


def test_what_keeps_its_limits_continues_and_leaves_no_watchdog(tmp_path):
    with enforce_limits(Limits(seconds=60.0, memory_bytes=10**12), tmp_path / "reason"):
        pass
    assert not list(tmp_path.iterdir())
    watching = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in watching


def attempt(folders: SweepFolders, seconds: float) -> None:
    (trial,) = plan_of(endless(), folders).trials
    execute(trial, worker_context(folders, limits=Limits(seconds=seconds)), lambda report: None)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_an_attempt_that_broke_a_limit_is_recorded_and_not_repeated(folders):
    assert end_of(attempt, folders, 2.0) == -signal.SIGKILL
    (trial,) = plan_of(endless(), folders).trials
    record = execute(trial, worker_context(folders, run=not_called), lambda report: None)
    assert record.status == "failed"
    assert "sweep.resources.time_limit_seconds" in (record.error or "")
    assert record.attempts == 1
    assert RecordFolder(folders.records).read(trial.key) == record


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_trial_beyond_its_time_fails_alone_in_a_sweep(folders):
    quick = {"loss": {"name": "contrastive"}, "train": {"epochs": 1}}
    losses = {"endless": {"loss": {"name": "multi_similarity"}}, "quick": quick}
    config = endless(losses=losses, resources={"time_limit_seconds": 20.0})
    plan = run_sweep(config, folders, MemoryTracker())
    found = {trial.cell.labels["loss"]: plan.records[trial.key] for trial in plan.trials}
    assert found["quick"].status == "finished"
    assert found["endless"].status == "failed"
    assert "time limit: a trial may run 20 s" in (found["endless"].error or "")
    assert found["endless"].attempts == 1
    assert [trial.cell.labels["loss"] for trial in plan.missing] == ["endless"]


def budget_for(folders, trials):
    """A budget that `trials` of the plan fit into exactly, one at a time."""
    needs = [disk_estimate(trial) for trial in trials]
    there = folder_bytes(folders.study / "state/storage")
    return there + sum(need.persistent for need in needs) + max(need.temporary for need in needs)


def test_trials_beyond_the_disk_budget_are_not_started(folders):
    config = sweep_config()
    trials = plan_of(config, folders).trials
    storage = folders.study / config.storage
    both, one = budget_for(folders, trials), budget_for(folders, trials[:1])
    assert not over_budget(trials, storage, None, 1)
    assert not over_budget(trials, storage, both, 1)
    assert list(over_budget(trials, storage, both - 1, 1)) == [trials[1].key]
    assert list(over_budget(trials, storage, one, 1)) == [trials[1].key]
    assert len(over_budget(trials, storage, one, 2)) == 2
    write_atomically(storage / "of another sweep", bytes(1000))
    assert len(over_budget(trials, storage, one, 1)) == 2


def test_a_sweep_without_room_records_why_and_starts_nothing(folders):
    config = sweep_config(disk_budget_bytes=1)
    tracker = MemoryTracker()
    plan = run_sweep(config, folders, tracker)
    assert {record.status for record in plan.records.values()} == {"failed"}
    assert all("sweep.disk_budget_bytes" in (record.error or "") for record in plan.records.values())
    assert not tracker.started
    assert any(
        "2 trials do not fit" in line for line in preview(plan, config, folders.study / config.storage)
    )


@pytest.fixture
def small_disk(tmp_path):
    with mounted(tmp_path / "disk", 1_000_000) as folder:
        yield folder


@pytest.mark.parametrize("free", [0, 40_000])
def test_a_disk_full_during_a_checkpoint_fails_the_trial_and_leaves_nothing_half(folders, small_disk, free):
    config = sweep_config(storage=str(small_disk / "storage"), regularizers=[[]])
    filler = fill(small_disk, free)
    (record,) = run_here(config, folders, MemoryTracker())
    assert record.status == "failed"
    assert "the disk is full" in (record.error or "")
    assert not list(small_disk.rglob("*.safetensors"))
    assert not list(small_disk.rglob(".*"))
    filler.unlink()
    (again,) = run_here(config, folders, MemoryTracker())
    assert again.status == "finished"


def test_a_disk_full_during_a_record_loses_that_record_alone(small_disk, small_data, tmp_path, capsys):
    folders = SweepFolders(small_disk / "study", small_data.folder.parent)
    config = sweep_config(storage=str(tmp_path / "storage"))
    context = worker_context(folders)
    first, second = plan_of(config, folders).trials
    before = execute(first, context, lambda report: None)
    filler = fill(small_disk, 0)
    with pytest.raises(OSError, match="the disk is full"):
        execute(second, context, lambda report: None)
    record_lost([second], {second.key: "OSError: no space"}, context, MemoryTracker())
    assert (
        f"{second.name} failed (OSError: no space) and its record was not written" in capsys.readouterr().out
    )
    assert RecordFolder(folders.records).all() == [before]
    assert [path.name for path in folders.records.iterdir()] == [f"{first.key}.json"]
    filler.unlink()
    assert plan_of(config, folders).missing == [second]
    assert execute(second, context, lambda report: None).status == "finished"

"""The process that writes to MLflow: order, patience, and what becomes of errors, interruptions and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dmlcore.records import TrialRecord
from dmlcore.tracking import TrackerProcess


class Diary:
    """Writes each call as a line into a file; `start` waits until the file `gate` beside it is there.

    Args:
        folder: of both.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def lines(self) -> list[str]:
        path = self.folder / "diary"
        return path.read_text().splitlines() if path.exists() else []

    def open_gate(self) -> None:
        (self.folder / "gate").touch()

    def prepare(self) -> None:
        self._write(f"process {os.getpid()}")

    def start(self, trial_key, name, labels, config) -> None:
        self._write(f"start {trial_key}")
        while not (self.folder / "gate").exists():
            time.sleep(0.02)

    def epoch(self, trial_key, epoch, metrics) -> None:
        if not metrics:
            raise RuntimeError("no metrics")
        self._write(f"epoch {trial_key} {epoch} {metrics}")

    def finish(self, record, name) -> None:
        self._write(f"finish {record.trial_key}")

    def sync(self, records) -> int:
        late = [record for record in records if f"finish {record.trial_key}" not in self.lines]
        for record in late:
            self.finish(record, record.name)
        return len(late)

    def _write(self, line: str) -> None:
        with (self.folder / "diary").open("a") as file:
            file.write(line + "\n")


@pytest.fixture
def diary(tmp_path):
    return Diary(tmp_path)


def record(key: str) -> TrialRecord:
    return TrialRecord(trial_key=key, train_key=key, eval_key=key, status="finished", config={})


def drive(folder: str) -> None:
    """A sweep's driver that waits to be killed while its first call is made."""
    with TrackerProcess(Diary(Path(folder))) as tracker:
        tracker.prepare()
        tracker.start("a", "a", {}, {})
        tracker.finish(record("a"), "a")
        time.sleep(60)


def until(true: Callable[[], object]) -> None:
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_nothing_waits_for_a_slow_tracker_and_its_end_waits_for_all_calls(diary):
    with TrackerProcess(diary) as tracker:
        tracker.prepare()
        for key in "ab":
            tracker.start(key, key, {}, {})
            tracker.epoch(key, 0, {"validation/map_at_r": 0.5})
            tracker.finish(record(key), key)
        assert not any(line.startswith("epoch") for line in diary.lines)
        diary.open_gate()
    process, *calls = diary.lines
    assert process.startswith("process ")
    assert process != f"process {os.getpid()}"
    epoch = "0 {'validation/map_at_r': 0.5}"
    assert calls == [
        line for key in "ab" for line in (f"start {key}", f"epoch {key} {epoch}", f"finish {key}")
    ]


def test_more_calls_than_a_pipe_holds_do_not_wait_either(diary):
    metrics = {f"validation/metric_{number}": float(number) for number in range(27)}
    with TrackerProcess(diary) as tracker:
        tracker.start("a", "a", {}, {})
        for epoch in range(2000):
            tracker.epoch("a", epoch, metrics)
        until(lambda: diary.lines)
        assert diary.lines == ["start a"]
        diary.open_gate()
    assert len(diary.lines) == 2001


def test_sync_comes_after_all_that_was_told_before(diary):
    diary.open_gate()
    with TrackerProcess(diary) as tracker:
        tracker.start("a", "a", {}, {})
        tracker.finish(record("a"), "a")
        assert tracker.sync([record("a"), record("b")]) == 1
        assert diary.lines == ["start a", "finish a", "finish b"]


def test_after_an_interruption_no_one_waits_and_what_was_not_told_is_dropped(diary):
    def interrupted():
        with TrackerProcess(diary) as tracker:
            tracker.start("a", "a", {}, {})
            tracker.finish(record("a"), "a")
            until(lambda: diary.lines)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    diary.open_gate()
    time.sleep(0.2)
    assert diary.lines == ["start a"]


def test_a_call_that_raises_is_a_warning(diary, capfd):
    with TrackerProcess(diary) as tracker:
        tracker.epoch("a", 0, {})
        tracker.finish(record("a"), "a")
    assert diary.lines == ["finish a"]
    assert "RuntimeError: no metrics" in capfd.readouterr().err


def test_where_the_process_is_killed_the_calls_go_on_and_sync_delivers(diary, caplog):
    diary.open_gate()
    with TrackerProcess(diary) as tracker:
        tracker.prepare()
        until(lambda: diary.lines)
        victim = int(diary.lines[0].split()[1])
        os.kill(victim, signal.SIGKILL)
        until(lambda: psutil.Process(victim).status() == psutil.STATUS_ZOMBIE)
        for key in "ab":
            tracker.start(key, key, {}, {})
            tracker.finish(record(key), key)
        assert tracker.sync([record("a"), record("b")]) == 2
    assert diary.lines[1:] == ["finish a", "finish b"]
    assert caplog.text.count("the process that writes to MLflow died") == 1


def test_it_dies_with_the_driver_in_the_middle_of_a_call(diary):
    code = f"from tests.tracking import test_aside; test_aside.drive({str(diary.folder)!r})"
    driver = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: len(diary.lines) == 2)
    aside = psutil.Process(int(diary.lines[0].split()[1]))
    driver.kill()
    driver.wait()
    until(lambda: not aside.is_running())
    diary.open_gate()
    time.sleep(0.2)
    assert diary.lines[1:] == ["start a"]

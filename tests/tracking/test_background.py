"""The process that writes to MLflow: order, patience, and what becomes of errors, interruptions and kills."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
from filelock import FileLock

from dmlcore.records import TrialRecord
from dmlcore.tracking import BackgroundTracker, background

ROOT = Path(__file__).resolve().parents[2]


class Diary:
    """Writes each call as a line into a file; `start` waits until the file `gate` next to it exists.

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
        self._write(f"process {os.getpid()} nice {os.nice(0)}")

    @property
    def process(self) -> psutil.Process:
        """That which was told to prepare."""
        return psutil.Process(int(self.lines[0].split()[1]))

    def start(self, trial_key, name, labels, config) -> None:
        self._write(f"start {trial_key}")
        while not (self.folder / "gate").exists():
            time.sleep(0.02)
        self._write(f"started {trial_key}")

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


class Unreadable:
    """Can be sent, and raises where it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


def _refuse() -> NoReturn:
    raise ValueError("not readable there")


def record(key: str) -> TrialRecord:
    return TrialRecord(trial_key=key, train_key=key, eval_key=key, status="finished", config={})


def drive(folder: str) -> None:
    """A sweep's driver that waits to be killed while its first call is made."""
    with BackgroundTracker(Diary(Path(folder)), Path(folder)) as tracker:
        tracker.prepare()
        tracker.start("a", "a", {}, {})
        tracker.finish(record("a"), "a")
        time.sleep(60)


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def until(true: Callable[[], object]) -> None:
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_nothing_waits_for_a_slow_tracker_and_its_end_waits_for_all_calls(diary):
    with BackgroundTracker(diary, diary.folder) as tracker:
        tracker.prepare()
        for key in "ab":
            tracker.start(key, key, {}, {})
            tracker.epoch(key, 0, {"validation/map_at_r": 0.5})
            tracker.finish(record(key), key)
        until(lambda: diary.lines[1:] == ["start a"])
        assert diary.process.pid != os.getpid()
        diary.open_gate()
    process, *calls = diary.lines
    assert process.endswith(f"nice {os.nice(0) + 10}")
    epoch = "0 {'validation/map_at_r': 0.5}"
    told = ("start {0}", "started {0}", "epoch {0} " + epoch, "finish {0}")
    assert calls == [line.replace("{0}", key) for key in "ab" for line in told]


def test_more_calls_than_a_pipe_holds_do_not_wait_either(diary):
    metrics = {f"validation/metric_{number}": float(number) for number in range(27)}
    with BackgroundTracker(diary, diary.folder) as tracker:
        tracker.start("a", "a", {}, {})
        for epoch in range(2000):
            tracker.epoch("a", epoch, metrics)
        until(lambda: diary.lines)
        assert diary.lines == ["start a"]
        diary.open_gate()
    assert len(diary.lines) == 2002


def test_sync_comes_after_all_that_was_told_before(diary):
    diary.open_gate()
    with BackgroundTracker(diary, diary.folder) as tracker:
        tracker.start("a", "a", {}, {})
        tracker.finish(record("a"), "a")
        assert tracker.sync([record("a"), record("b")]) == 1
        assert diary.lines == ["start a", "started a", "finish a", "finish b"]


def test_after_an_interruption_the_call_that_is_made_ends_and_what_waits_is_dropped(diary):
    def interrupted():
        with BackgroundTracker(diary, diary.folder) as tracker:
            tracker.start("a", "a", {}, {})
            tracker.finish(record("a"), "a")
            until(lambda: diary.lines)
            threading.Timer(0.5, diary.open_gate).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert diary.lines == ["start a", "started a"]


def test_an_interruption_waits_for_a_call_that_hangs_but_not_for_ever(diary, monkeypatch):
    monkeypatch.setattr(background, "GRACE_SECONDS", 0.5)

    def interrupted():
        with BackgroundTracker(diary, diary.folder) as tracker:
            tracker.prepare()
            tracker.start("a", "a", {}, {})
            until(lambda: len(diary.lines) == 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not psutil.pid_exists(int(diary.lines[0].split()[1]))


def test_one_that_is_told_nothing_does_not_wait_for_another_that_writes(diary):
    with FileLock(diary.folder / background.LOCK):
        refused = BackgroundTracker(diary, diary.folder)
        with pytest.raises(KeyboardInterrupt), refused:
            raise KeyboardInterrupt
    assert refused._process.returncode == 0, "it must end by itself"


def test_what_cannot_be_sent_or_read_there_is_a_warning(diary, caplog, capfd):
    diary.open_gate()
    with BackgroundTracker(diary, diary.folder) as tracker:
        tracker.start("a", "a", {"lock": threading.Lock()}, {})
        assert "cannot pickle" in caplog.text
        tracker.start("b", "b", {"label": Unreadable()}, {})
        assert tracker.sync([record("b")]) == 1  # made in this process
    assert diary.lines == ["finish b"]
    assert "not readable there" in capfd.readouterr().err


def test_a_call_that_raises_is_a_warning(diary, capfd):
    with BackgroundTracker(diary, diary.folder) as tracker:
        tracker.epoch("a", 0, {})
        tracker.finish(record("a"), "a")
    assert diary.lines == ["finish a"]
    assert "RuntimeError: no metrics" in capfd.readouterr().err


def test_where_the_process_is_killed_the_calls_go_on_and_sync_delivers(diary, caplog):
    diary.open_gate()
    with BackgroundTracker(diary, diary.folder) as tracker:
        tracker.prepare()
        until(lambda: diary.lines)
        diary.process.kill()
        until(lambda: ended(diary.process))
        for key in "ab":
            tracker.start(key, key, {}, {})
            tracker.finish(record(key), key)
        assert tracker.sync([record("a"), record("b")]) == 2
    assert diary.lines[1:] == ["finish a", "finish b"]
    assert caplog.text.count("the process that writes to MLflow died") == 1


def test_when_the_driver_is_killed_its_last_call_ends_before_the_next_drivers_first(diary):
    code = f"from tests.tracking import test_background; test_background.drive({str(diary.folder)!r})"
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        until(lambda: len(diary.lines) == 2)
    finally:
        driver.kill()
        driver.wait()
    with BackgroundTracker(diary, diary.folder) as tracker:
        tracker.finish(record("b"), "b")
        time.sleep(2.0)  # to start, and to wait
        assert diary.lines[1:] == ["start a"]
        diary.open_gate()
    until(lambda: ended(diary.process))
    assert diary.lines[1:] == ["start a", "started a", "finish b"]

"""The thread that tells a tracker what trials report: order, patience, what becomes of errors and interruptions."""

from __future__ import annotations

import threading
import time

import pytest

from dmlcore.records import TrialRecord
from dmlcore.tracking import MemoryTracker
from dmlcore.tuning.tracker import TrackerThread


class Slow(MemoryTracker):
    """Waits at every start until it may go on; says in which thread it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()
        self.threads: set[int] = set()

    def start(self, trial_key, *rest):
        self.threads.add(threading.get_ident())
        assert self.may_go_on.wait(60)
        super().start(trial_key, *rest)

    def epoch(self, trial_key, *rest):
        self.threads.add(threading.get_ident())
        assert trial_key in self.started, "calls must come in their order"
        super().epoch(trial_key, *rest)


def record(key):
    return TrialRecord(trial_key=key, train_key=key, eval_key=key, status="finished", config={})


def test_nothing_waits_for_a_slow_tracker_and_its_end_waits_for_all_calls():
    slow = Slow()
    with TrackerThread(slow) as tracker:
        for key in "ab":
            tracker.start(key, key, {}, {})
            tracker.epoch(key, 0, {"validation/map_at_r": 0.5})
            tracker.finish(record(key), key)
        assert not slow.started
        slow.may_go_on.set()
    assert slow.started == ["a", "b"]
    assert slow.epochs == {key: {0: {"validation/map_at_r": 0.5}} for key in "ab"}
    assert slow.records.keys() == {"a", "b"}
    assert len(slow.threads) == 1
    assert threading.get_ident() not in slow.threads


def test_sync_comes_after_all_that_was_told_before():
    slow = Slow()
    with TrackerThread(slow) as tracker:
        tracker.start("a", "a", {}, {})
        tracker.finish(record("a"), "a")
        threading.Timer(0.2, slow.may_go_on.set).start()
        assert tracker.sync([record("a"), record("b")]) == 1  # `b` alone was late


def test_after_an_interruption_no_one_waits_and_what_was_not_told_is_dropped():
    slow = Slow()
    started = time.monotonic()

    def interrupted():
        with TrackerThread(slow) as tracker:
            tracker.start("a", "a", {}, {})
            tracker.finish(record("a"), "a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - started < 10
    slow.may_go_on.set()
    time.sleep(0.2)
    assert not slow.records


def test_a_tracker_that_raises_is_a_warning(caplog):
    class Broken(MemoryTracker):
        def epoch(self, trial_key, *rest):
            raise RuntimeError("no space")

    broken = Broken()
    with TrackerThread(broken) as tracker:
        tracker.epoch("a", 0, {})
        tracker.finish(record("a"), "a")
    assert broken.records.keys() == {"a"}
    assert "RuntimeError: no space" in caplog.text

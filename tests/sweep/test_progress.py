"""The progress display: counts, time left, plain lines without a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from dmlcore.records import TrialRecord
from dmlcore.sweep.progress import Progress, duration, outcome


def record(status="finished", **changes):
    values = {
        "trial_key": "k",
        "train_key": "t",
        "eval_key": "e",
        "status": status,
        "config": {},
        "seconds": 41.0,
    }
    metrics = {"test/map_at_r": 0.4123, "test/recall_at_1": 0.5, "test/opis": 0.00712}
    return TrialRecord.model_validate(values | {"metrics": metrics} | changes)


def test_lines_are_plain_and_unwrapped_without_a_terminal():
    out = io.StringIO()
    with Progress(3, 2, Console(file=out, width=40)) as progress:
        progress.start("a", "glyphs resnet smooth_ap baseline seed 0", epochs=4)
        progress.start("b", "glyphs resnet smooth_ap [red]tcm seed 0", epochs=4)
        progress.epoch("a", 2, 0.3)
        progress.end("a", "glyphs resnet smooth_ap baseline seed 0", record())
        progress.end(
            "b", "glyphs resnet smooth_ap [red]tcm seed 0", record("failed", error="boom", metrics={})
        )
    lines = out.getvalue().splitlines()
    assert lines[0] == (
        "[1/3] glyphs resnet smooth_ap baseline seed 0: MAP@R 0.412, R@1 0.500, OPIS 0.00712 in 41 s"
    )
    assert lines[1].strip().startswith("1 finished, 1 running, 0 failed")
    assert lines[2] == "[2/3] glyphs resnet smooth_ap [red]tcm seed 0: FAILED: boom"
    assert "1 finished, 0 running, 1 failed" in lines[3]


def test_the_terminal_gets_a_live_display():
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    with Progress(2, 2, console) as progress:
        progress.start("a", "a trial", epochs=4)
        progress.epoch("a", 3, 0.25)
    assert "epoch 3/4" in out.getvalue()
    assert "validation MAP@R 0.250" in out.getvalue()


def test_time_left_counts_half_done_trials():
    progress = Progress(4, 2, Console(file=io.StringIO()))
    assert progress.seconds_left() is None
    progress.start("a", "a", epochs=4)
    progress.epoch("a", 4, None)
    progress.started -= 30.0
    assert 85 < progress.seconds_left() < 95


def test_a_dead_process_is_a_failure():
    assert outcome(None) == "FAILED: its process died"


def test_durations():
    assert [duration(value) for value in (5, 99, 150, 7200)] == ["5 s", "99 s", "2 min", "2.0 h"]

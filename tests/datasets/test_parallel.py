import threading
import time

import pytest

from dmlcore.datasets.prepare import encoding
from dmlcore.datasets.prepare.encoding import CHUNK, all_cores, ordered_map, with_progress


def test_results_come_in_order():
    def slow_first(number):
        time.sleep(0.02 if number < CHUNK else 0.0)
        return 2 * number

    assert list(ordered_map(slow_first, range(100), 3)) == list(range(0, 200, 2))
    assert list(ordered_map(slow_first, [], 3)) == []


def test_no_more_is_read_than_is_taken_and_a_few_tasks():
    read = []

    def items():
        for number in range(10_000):
            read.append(number)
            yield number

    results = ordered_map(lambda number: number, items(), 2)
    for _ in range(10):
        next(results)
    assert len(read) <= 4 * 2 * CHUNK
    results.close()


def test_two_threads_work_at_once():
    both = threading.Barrier(2, timeout=10)
    results = ordered_map(lambda number: both.wait() if number in (0, CHUNK) else None, range(2 * CHUNK), 2)
    assert len(list(results)) == 2 * CHUNK


def test_an_error_reaches_the_caller_and_ends_the_threads():
    def faulty(number):
        if number == 3:
            raise ValueError("number 3")

    with pytest.raises(ValueError, match="number 3"):
        list(ordered_map(faulty, range(1000), 2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]


def test_without_a_terminal_progress_is_plain_lines(monkeypatch, capsys):
    monkeypatch.setattr(encoding, "LINE_SECONDS", 0.0)
    assert list(with_progress(["a", "b"], "encode", done=998, total=1000)) == ["a", "b"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", ")[0] for line in lines] == ["encode: 999 of 1,000", "encode: 1,000 of 1,000"]


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(with_progress(["a", "b"], "encode", done=0, total=2)) == ["a", "b"]
    assert "2/2" in capsys.readouterr().err


def test_there_is_a_core():
    assert all_cores() >= 1

"""The log of a search: what was asked is there whatever happened to the process that asked."""

from __future__ import annotations

import pytest

from dmlcore.records import RecordError
from dmlcore.sweep.search.log import Ask, SearchLog

ASKS = [
    Ask(number=0, params={"x": 0.1, "y": 3, "z": "a"}, trial_key="k"),
    Ask(number=1, params={"x": 1.0e-5, "y": 4, "z": "b"}, refused="no", attributes={"generation": 1}),
]


@pytest.fixture
def log(tmp_path):
    found = SearchLog(tmp_path / "search" / "a.jsonl")
    for ask in ASKS:
        found.append(ask)
    return found


def test_what_is_written_is_read(log):
    assert log.asks() == ASKS
    assert [type(value) for value in log.asks()[0].params.values()] == [float, int, str]
    assert SearchLog(log.path.with_name("none.jsonl")).asks() == []


@pytest.mark.parametrize("torn", [b'{"number": 2, "par', b'{"number": 2, "params": {}}', b"\0\0\0\n"])
def test_a_torn_last_line_is_dropped_and_written_over(log, torn):
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + torn)
    assert log.asks() == ASKS
    log.append(Ask(number=2, params={}, trial_key="l"))
    assert log.path.read_bytes().startswith(whole)
    assert [ask.number for ask in log.asks()] == [0, 1, 2]


def test_a_broken_line_in_the_middle_is_an_error(log):
    first, second = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"x" + first + second)
    with pytest.raises(RecordError, match="line 1 is not"):
        log.asks()

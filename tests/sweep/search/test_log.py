"""The log of a search: what was asked is there whatever happened to the process that asked."""

from __future__ import annotations

import pytest

from dmlcore.records import RecordError
from dmlcore.sweep.search.log import SearchLog, Suggestion

ASKS = [
    Suggestion(number=0, params={"x": 0.1, "y": 3, "z": "a"}, trial_key="k"),
    Suggestion(number=1, params={"x": 1.0e-5, "y": 4, "z": "b"}, refused="no", attributes={"generation": 1}),
]


@pytest.fixture
def log(tmp_path):
    found = SearchLog(tmp_path / "search" / "a.jsonl")
    for suggestion in ASKS:
        found.append(suggestion)
    return found


def test_what_is_written_is_read(log):
    assert log.suggestions() == ASKS
    assert [type(value) for value in log.suggestions()[0].params.values()] == [float, int, str]
    assert SearchLog(log.path.with_name("none.jsonl")).suggestions() == []


@pytest.mark.parametrize("torn", [b'{"number": 2, "par', b'{"number": 2, "params": {}}', b"\0\0\0\n"])
def test_a_torn_last_line_is_dropped_and_written_over(log, torn):
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + torn)
    assert log.suggestions() == ASKS
    log.append(Suggestion(number=2, params={}, trial_key="l"))
    assert log.path.read_bytes().startswith(whole)
    assert [suggestion.number for suggestion in log.suggestions()] == [0, 1, 2]


def test_a_broken_line_in_the_middle_is_an_error(log):
    first, second = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"x" + first + second)
    with pytest.raises(RecordError, match="line 1 is not"):
        log.suggestions()


@pytest.mark.parametrize("line", [0, 1])
def test_a_changed_digit_is_an_error(log, line):
    lines = log.path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"y": 3', b'"y": 7').replace(b'"y": 4', b'"y": 7')
    log.path.write_bytes(b"".join(lines))
    with pytest.raises(RecordError, match=f"line {line + 1} is not"):
        log.suggestions()

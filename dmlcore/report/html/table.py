"""Tables of the page: what is shown and the value that sorting and a recount use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dmlcore.report.html.text import rounded
from dmlcore.report.names import number


@dataclass(frozen=True)
class Value:
    """One cell."""

    text: str
    value: str | float | int | None = None
    """What the column is sorted by; None: nothing known, always last."""
    beside: str = ""
    """Shown smaller, after the text."""
    word: str = ""
    """A class for the style sheet."""
    link: str | None = None
    images: Sequence[tuple[str, str]] = ()
    """(address of the image, its description)."""


@dataclass(frozen=True)
class Row:
    cells: Sequence[Value]
    names: Mapping[str, str] = field(default_factory=dict)
    """What the filters choose by: data set, backbone, loss, metric, status."""


@dataclass(frozen=True)
class Table:
    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]


def text(value: object, word: str = "") -> Value:
    """A cell of text, sorted by it."""
    shown = "" if value is None else " ".join(str(value).split())
    return Value(shown, shown or None, word=word)


def whole(value: int | None) -> Value:
    """A count."""
    return Value("-" if value is None else f"{value:,}", value)


def measured(value: float | None, metric: str, signed: bool = False, beside: str = "") -> Value:
    """A number with the decimals of its metric."""
    return Value(number(value, metric, signed=signed), rounded(value), beside)


def interval(row: Mapping[str, Any], name: str, metric: str, signed: bool = False) -> Value:
    """The mean, and its interval beside it, of `name` in a row of `comparisons`."""
    mean, low, high = (row[f"{name}/{part}"] for part in ("mean", "low", "high"))
    ends = [number(end, metric, signed=signed) for end in (low, high)]
    return measured(mean, metric, signed, "" if low is None or high is None else " to ".join(ends))

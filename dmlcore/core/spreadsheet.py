"""CSV that people open in a spreadsheet, which runs a text that starts like a formula: `=cmd|' /C calc'!A0`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

FORMULA = r"^\s*[=+\-@\t\r\n＝＋－＠]"
"""How a cell starts that a spreadsheet runs; the wide forms count on East Asian systems."""
HARMLESS = r"^[+-]?([0-9.]+([eE][+-]?[0-9]+)?)?$"
"""A number, or a sign alone, which means a missing value."""


def rows_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of the same keys as CSV, without polars; None is an empty cell.

    Each text that would run as a formula is preceded by an apostrophe, as in `spreadsheet_csv`.
    """
    lines = [list(rows[0]), *(row.values() for row in rows)]
    return "".join(",".join(map(_cell, line)) + "\n" for line in lines)


def _cell(value: Any) -> str:
    if not isinstance(value, str):
        return "" if value is None else str(value)
    runs = re.match(FORMULA, value) and not re.fullmatch(HARMLESS, value)
    text = f"'{value}" if runs else value
    # not the csv module: until Python 3.13 it leaves a lone carriage return unquoted, and None is its empty text
    return '"' + text.replace('"', '""') + '"' if not text or re.search('[",\r\n]', text) else text


def spreadsheet_csv(table: pl.DataFrame) -> str:
    """Return the table as CSV, an apostrophe before each text that would run as a formula, names too."""
    import polars as pl

    names = dict(zip(table.columns, _as_text(pl.Series(table.columns, dtype=pl.String)), strict=True))
    texts = [_as_text(column) for column in table if column.dtype in (pl.String, pl.Categorical)]
    return table.with_columns(texts).rename(names).write_csv()


def _as_text(texts: pl.Series) -> pl.Series:
    import polars as pl

    texts = texts.cast(pl.String)
    runs = texts.str.contains(FORMULA) & ~texts.str.contains(HARMLESS)
    return pl.select(pl.when(runs).then(pl.lit("'") + texts).otherwise(texts).alias(texts.name)).to_series()

"""CSV that people open in a spreadsheet, which runs a text that starts like a formula: `=cmd|' /C calc'!A0`."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

FORMULA = r"^\s*[=+\-@\t\r\n＝＋－＠]"
"""How a cell starts that a spreadsheet runs; the wide forms count on East Asian systems."""
HARMLESS = r"^[+-]?([0-9.]+([eE][+-]?[0-9]+)?)?$"
"""A number, or a sign alone, which stands for a missing value."""


def spreadsheet_csv(table: pl.DataFrame) -> str:
    """Return the table as CSV, each text that would run as a formula, a column's name too, behind an apostrophe."""
    import polars as pl

    names = dict(zip(table.columns, _as_text(pl.Series(table.columns, dtype=pl.String)), strict=True))
    texts = [_as_text(column) for column in table if column.dtype in (pl.String, pl.Categorical)]
    return table.with_columns(texts).rename(names).write_csv()


def _as_text(texts: pl.Series) -> pl.Series:
    import polars as pl

    texts = texts.cast(pl.String)
    runs = texts.str.contains(FORMULA) & ~texts.str.contains(HARMLESS)
    return pl.select(pl.when(runs).then(pl.lit("'") + texts).otherwise(texts).alias(texts.name)).to_series()


def rows_csv(rows: list[dict[str, Any]]) -> str:
    """Return rows of the same keys as CSV, guarded as above, without polars; None is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([[_guarded(cell) for cell in row.values()] for row in rows])
    return out.getvalue()


def _guarded(cell: object) -> object:
    runs = isinstance(cell, str) and re.match(FORMULA, cell) and not re.match(HARMLESS, cell)
    return f"'{cell}" if runs else cell

"""A CSV opened in a spreadsheet runs nothing, and reads back as it was but for the apostrophes."""

from __future__ import annotations

import io

import polars as pl
import pytest

from dmlcore.core.spreadsheet import rows_csv, spreadsheet_csv


def read_back(table: pl.DataFrame) -> pl.DataFrame:
    return pl.read_csv(io.StringIO(spreadsheet_csv(table)))


@pytest.mark.parametrize(
    "text",
    [
        "=cmd|' /C calc'!A0",
        "@SUM(1+1)*cmd|' /C calc'!A0",
        "+1+cmd|x",
        "-2+3+cmd|' /C calc'!D2",
        "\t=1+1",
        "\r=1+1",
        '  =HYPERLINK("http://x")',
        "＝1+1",
        "=a\nb",
    ],
)
def test_a_text_that_would_run_is_preceded_by_an_apostrophe(text):
    table = pl.DataFrame({"axis": [text, "plain", None], "number": [-1.5, 2.0, None]})
    found = read_back(table)
    assert found["axis"].to_list() == ["'" + text, "plain", None]
    assert found["number"].to_list() == [-1.5, 2.0, None]


@pytest.mark.parametrize(
    "text", ["a=b", "tcm(negative_margin=-0.5)", "-0.5", "+1.0e-4", "-", "'=quoted", "", "ünï"]
)
def test_other_texts_stay_as_they_are(text):
    assert (
        pl.read_csv(io.StringIO(spreadsheet_csv(pl.DataFrame({"a": [text, "z"]}))), infer_schema=False)["a"][
            0
        ]
        == text
    )


def test_a_column_is_named_so_too():
    assert read_back(pl.DataFrame({"=cmd|x": ["=1"], "b": [1]})).columns == ["'=cmd|x", "b"]


def test_a_categorical_column_and_an_empty_table():
    table = pl.DataFrame({"a": pl.Series(["=1", "x"], dtype=pl.Categorical)})
    assert read_back(table)["a"].to_list() == ["'=1", "x"]
    assert spreadsheet_csv(table.clear()) == "a\n"


def test_rows_are_written_as_a_table_is():
    texts = ["=1+1", "-0.5", "a,b", 'say "x"', "a\rb", "a\nb", "", None, "＝1", "-", "naïve"]
    rows = [{"=name": text, "images": i, "far": i / 7} for i, text in enumerate(texts)]
    assert rows_csv(rows) == spreadsheet_csv(pl.DataFrame(rows))

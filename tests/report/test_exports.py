"""Tables and figures in the formats of papers: every name escaped, every number that of the table."""

from __future__ import annotations

import io
import re
import shutil
import subprocess

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.metric_labels import METRICS, format_metric
from dmlcore.config.study import FigureConfig
from dmlcore.report.figures.tradeoff import tradeoff_figure
from dmlcore.report.text.exports import (
    escape_latex,
    latex_comparisons,
    markdown_comparisons,
    parquet_bytes,
    pdf_bytes,
    write_exports,
)
from tests.analysis.synthetic import rows, study

NASTY = r"a_b & 100% {x} $y$ #z ^t ~u \v <script>|w| `q`"


@pytest.fixture(scope="module")
def found():
    return comparisons(study(rows(losses=("smooth_ap", NASTY))))


def test_markdown_has_a_row_a_comparison_with_its_numbers(found):
    lines = markdown_comparisons(found.to_dicts()).splitlines()
    assert len(lines) == 2 + found.height
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert widths == {1 + 5 + 4 * len(METRICS)}
    for line, row in zip(lines[2:], found.to_dicts(), strict=True):
        assert f"`{row['backbone']}`" in line
        for metric in METRICS:
            assert format_metric(row[f"test/{metric}/baseline/mean"], metric) in line
            assert f"{row[f'test/{metric}/difference/p_holm']:.3f}" in line


def test_latex_has_balanced_braces_and_as_many_cells_a_row(found):
    text = latex_comparisons(found.to_dicts(), ["map_at_r", "opis"])
    plain = text.replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert len(body) == found.height
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {4 + 2 * 4}
    for line, row in zip(body, found.to_dicts(), strict=True):
        assert f"${format_metric(row['test/opis/variant/mean'], 'opis')}$" in line


@pytest.mark.parametrize("mark", "&%$#_{}")
def test_latex_marks_follow_a_backslash(mark):
    assert escape_latex(f"a{mark}b") == f"a\\{mark}b"


def test_latex_of_a_nasty_name():
    expected = r"a\_b \& 100\% \{x\} \$y\$ \#z \textasciicircum{}t \textasciitilde{}u \textbackslash{}v "
    assert escape_latex(NASTY) == expected + r"\textless{}script\textgreater{}\textbar{}w\textbar{} `q`"
    assert escape_latex("two\nlines\x00") == "two lines"


def test_parquet_is_the_table(found):
    assert_frame_equal(pl.read_parquet(io.BytesIO(parquet_bytes(found))), found)


def test_a_figure_as_pdf_has_no_date_and_the_same_bytes_twice():
    made = study(rows())
    first, second = (pdf_bytes(tradeoff_figure(made), FigureConfig()) for _ in range(2))
    assert first == second
    assert first.startswith(b"%PDF")
    assert b"CreationDate" not in first
    assert b"/Type3" not in first


def test_every_format_is_written(tmp_path):
    made = study(rows())
    paths = write_exports(made, tmp_path / "paper")
    assert {path.suffix for path in paths} == {".csv", ".parquet", ".md", ".tex", ".png", ".pdf"}
    assert all(path.stat().st_size > 500 for path in paths)
    assert pl.read_parquet(tmp_path / "paper" / "comparisons.parquet").height == comparisons(made).height


def test_latex_compiles(found, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    lines = [r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\begin{document}\tiny"]
    lines += [latex_comparisons(found.to_dicts()), r"\end{document}"]
    (tmp_path / "t.tex").write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:]

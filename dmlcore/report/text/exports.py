"""Tables as Markdown, LaTeX and parquet, figures as PDF: the same bytes for the same input."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import polars as pl
from matplotlib.figure import Figure

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.metric_labels import METRICS, format_metric, metric_label, variant_label
from dmlcore.analysis.study import BASELINE, Study
from dmlcore.config.report import FigureConfig
from dmlcore.core.io import write_atomically
from dmlcore.metrics.plot import png_bytes
from dmlcore.report.extra_analyses import csv_text, displayed_study
from dmlcore.report.figures.tradeoff import tradeoff_figure
from dmlcore.report.figures.utility import utility_figure
from dmlcore.report.text.tables import code_span

Row = Mapping[str, Any]
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


def write_exports(study: Study, folder: Path) -> list[Path]:
    """Write the comparisons as CSV, parquet, Markdown and LaTeX, the figures as PNG and PDF; returns the files."""
    table = comparisons(study)
    rows, config = table.to_dicts(), study.config.figure
    content: dict[str, str | bytes] = {
        "comparisons.csv": csv_text(table),
        "comparisons.parquet": parquet_bytes(table),
        "comparisons.md": markdown_comparisons(rows),
        "comparisons.tex": latex_comparisons(rows),
    }
    shown = displayed_study(study)
    for name, figure in (("tradeoff", tradeoff_figure(shown)), ("utility_curves", utility_figure(shown))):
        # PDF first: the PNG's layout is the figure's last
        content |= {
            f"{name}.pdf": pdf_bytes(figure, config),
            f"{name}.png": png_bytes(figure, config.dots_per_inch),
        }
    for name, data in content.items():
        write_atomically(folder / name, data)
    return [folder / name for name in content]


def escape_latex(text: object) -> str:
    """`text` on one line with every character that LaTeX would read as markup written out."""
    line = " ".join(str(text).split())
    return "".join(LATEX.get(character, character) for character in line if character.isprintable())


def comparison_cells(row: Row, metrics: Sequence[str] = tuple(METRICS)) -> list[str]:
    """Pairs of seeds, then for each metric: off, variant, difference with the half-width of its interval, p after Holm."""
    cells = [f"{row['seeds/paired']} of {row['seeds/planned']}"]
    for metric in metrics:
        name = f"test/{metric}"
        baseline, on = (format_metric(row[f"{name}/{side}/mean"], metric) for side in ("baseline", "variant"))
        cells += [
            baseline,
            "-" if row["variant"] == BASELINE else on,
            _difference(row, metric),
            _p_value(row, metric),
        ]
    return cells


def markdown_comparisons(rows: Sequence[Row], metrics: Sequence[str] = tuple(METRICS)) -> str:
    """The rows of `comparisons` as a Markdown table; names stand in code spans, so that nothing in them is markup."""
    heads = [*_names_head(rows), "pairs", *_metric_heads(metrics)]
    rule = ["---"] * (len(heads) - 4 * len(metrics)) + ["---:"] * (4 * len(metrics))
    lines = [heads, rule, *([*map(code_span, _names(row)), *comparison_cells(row, metrics)] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def latex_comparisons(rows: Sequence[Row], metrics: Sequence[str] = tuple(METRICS)) -> str:
    r"""The rows of `comparisons` as a LaTeX `tabular` for \usepackage{booktabs}; every name is escaped."""
    head = _names_head(rows)
    groups = " & ".join(
        rf"\multicolumn{{4}}{{c}}{{{escape_latex(metric_label(metric))}}}" for metric in metrics
    )
    first = len(head) + 2
    spans = [rf"\cmidrule(lr){{{first + 4 * i}-{first + 4 * i + 3}}}" for i in range(len(metrics))]
    heads = [*map(escape_latex, head), "pairs", *["baseline", "on", "on $-$ off", "$p$"] * len(metrics)]
    body = [
        [*map(escape_latex, _names(row)), *map(_latex_number, comparison_cells(row, metrics))] for row in rows
    ]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{'l' * (first - 1)}{'r' * (4 * len(metrics))}}}",
            r"\toprule",
            " & " * (first - 1) + groups + r" \\",
            "".join(spans),
            " & ".join(heads) + r" \\",
            r"\midrule",
            *(" & ".join(cells) + r" \\" for cells in body),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def parquet_bytes(table: pl.DataFrame) -> bytes:
    """The table as a parquet file, numbers in full."""
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def pdf_bytes(figure: Figure, config: FigureConfig) -> bytes:
    """The figure as a PDF with its fonts embedded as text, without the writer's version or a date."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # TrueType: journals refuse Type 3
        figure.savefig(buffer, format="pdf", dpi=config.dots_per_inch, metadata=nothing)
    return buffer.getvalue()


def _names_head(rows: Sequence[Row]) -> list[str]:
    axes = [key.removeprefix("axis/") for key in (rows[0] if rows else {}) if key.startswith("axis/")]
    return ["data set", "backbone", "loss", "variant", *axes]


def _names(row: Row) -> list[str]:
    axes = ["" if row[key] is None else row[key] for key in row if key.startswith("axis/")]
    return [row["dataset"], row["backbone"], row["loss"], variant_label(row["variant"]), *axes]


def _metric_heads(metrics: Sequence[str]) -> list[str]:
    return [
        f"{metric_label(metric)} {part}".strip()
        for metric in metrics
        for part in ("baseline", "on", "variant - baseline", "p (Holm)")
    ]


def _difference(row: Row, metric: str) -> str:
    mean, low, high = (row[f"test/{metric}/difference/{part}"] for part in ("mean", "low", "high"))
    text = format_metric(mean, metric, signed=True)
    return text if low is None or high is None else f"{text} ± {format_metric((high - low) / 2, metric)}"


def _p_value(row: Row, metric: str) -> str:
    p = row[f"test/{metric}/difference/p_holm"]
    if p is None or not math.isfinite(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _latex_number(cell: str) -> str:
    if not any(character.isdigit() for character in cell) or " of " in cell:
        return escape_latex(cell) if cell != "-" else "--"
    return f"${cell.replace('±', chr(92) + 'pm')}$"

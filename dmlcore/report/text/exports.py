"""Tables as CSV, Markdown, LaTeX and parquet, figures as PDF: the same bytes for the same input."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from pathlib import Path

import matplotlib
import polars as pl
import polars.selectors as cs
from matplotlib.figure import Figure

from dmlcore.analysis.columns import EXPORTS, IntervalColumn, Row, axes_of, columns_of
from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.meta_analysis import forests
from dmlcore.analysis.metric_labels import METRICS, SIGNIFICANT_DIGITS, metric_label, variant_label
from dmlcore.analysis.study import Study
from dmlcore.analysis.tuned_settings import displayed_study
from dmlcore.config.study import FigureConfig
from dmlcore.core.io import write_together
from dmlcore.core.spreadsheet import spreadsheet_csv
from dmlcore.metrics.plot import png_bytes
from dmlcore.report.figures.forest import forest_figure
from dmlcore.report.figures.tradeoff import tradeoff_figure
from dmlcore.report.figures.utility import utility_figure
from dmlcore.report.text.tables import code_span, markdown_row

LATEX = {character: rf"\{character}" for character in "{}$&#%_"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


def write_exports(study: Study, folder: Path) -> list[Path]:
    """Write the comparisons as CSV, parquet, Markdown and LaTeX, the figures as PNG and PDF; all of them or none.

    Returns:
        The files.
    """
    table = comparisons(study)
    rows, config = table.to_dicts(), study.config.figure
    content: dict[str, str | bytes] = {
        "comparisons.csv": csv_text(table),
        "comparisons.parquet": parquet_bytes(table),
        "comparisons.md": markdown_comparisons(rows),
        "comparisons.tex": latex_comparisons(rows),
    }
    shown = displayed_study(study)
    figures = {"tradeoff": tradeoff_figure(shown), "utility_curves": utility_figure(shown)}
    if found := forests(study):
        figures["forest"] = forest_figure(found, study.config.confidence)
    for name, figure in figures.items():
        # PDF first: the PNG fixes the figure's layout
        content[f"{name}.pdf"] = pdf_bytes(figure, config)
        content[f"{name}.png"] = png_bytes(figure, config.dots_per_inch)
    write_together(folder, content)
    return [folder / name for name in content]


def markdown_comparisons(rows: Sequence[Row], metrics: Collection[str] = METRICS) -> str:
    """Return the rows of `comparisons` as a Markdown table; names are in code spans, so nothing in them is markup."""
    names, columns = _name_labels(rows), columns_of(EXPORTS)
    numbers = [f"{metric_label(metric)} {column.label}" for metric in metrics for column in columns]
    rule = ["---"] * (len(names) + 1) + ["---:"] * len(numbers)
    body = [[*map(code_span, _names(row)), _pairs(row), *_numbers(row, metrics)] for row in rows]
    return "".join(f"{markdown_row(cells)}\n" for cells in ([*names, "pairs", *numbers], rule, *body))


def latex_comparisons(rows: Sequence[Row], metrics: Collection[str] = METRICS) -> str:
    r"""Return the rows of `comparisons` as a LaTeX `tabular` for \usepackage{booktabs}; every name is escaped."""
    labels = [column.label for column in columns_of(EXPORTS)]
    width, names = len(labels), _name_labels(rows)
    first = len(names) + 2  # number of the first column of the first metric, from 1
    groups = " & ".join(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(metric_label(m))}}}" for m in metrics)
    starts = [first + width * i for i in range(len(metrics))]
    rules = "".join(rf"\cmidrule(lr){{{start}-{start + width - 1}}}" for start in starts)
    head = [*names, "pairs", *labels * len(metrics)]
    body = [
        [*map(escape_latex, [*_names(row), _pairs(row)]), *map(_latex_number, _numbers(row, metrics))]
        for row in rows
    ]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{'l' * (first - 1)}{'r' * (width * len(metrics))}}}",
            r"\toprule",
            " & " * (first - 1) + groups + r" \\",
            rules,
            " & ".join(map(escape_latex, head)) + r" \\",
            r"\midrule",
            *(" & ".join(cells) + r" \\" for cells in body),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def escape_latex(text: object) -> str:
    """Return `text` on one line with every character that LaTeX would read as markup escaped."""
    line = " ".join(str(text).split())
    return "".join(LATEX.get(character, character) for character in line if character.isprintable())


def csv_text(table: pl.DataFrame) -> str:
    """Return the table as CSV, floats to 6 significant digits, null as an empty field, no text a formula."""
    return spreadsheet_csv(table.with_columns(cs.float().round_sig_figs(SIGNIFICANT_DIGITS)))


def parquet_bytes(table: pl.DataFrame) -> bytes:
    """Return the table as a parquet file, its numbers unrounded."""
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def pdf_bytes(figure: Figure, config: FigureConfig) -> bytes:
    """Return the figure as a PDF with its fonts embedded as text, without the writer's version or a date."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # TrueType: journals refuse Type 3
        figure.savefig(buffer, format="pdf", dpi=config.dots_per_inch, metadata=nothing)
    return buffer.getvalue()


def _name_labels(rows: Sequence[Row]) -> list[str]:
    return ["data set", "backbone", "loss", "variant", *(axes_of(rows[0]) if rows else ())]


def _names(row: Row) -> list[str]:
    axes = ("" if value is None else value for value in axes_of(row).values())
    return [row["dataset"], row["backbone"], row["loss"], variant_label(row["variant"]), *axes]


def _pairs(row: Row) -> str:
    return f"{row['seeds/paired']} of {row['seeds/planned']}"


def _numbers(row: Row, metrics: Collection[str]) -> list[str]:
    """Return the cells of all metrics; only a difference shows its interval, which keeps the table on a page."""
    return [
        column.mean_text(row, metric)
        if isinstance(column, IntervalColumn) and not column.signed
        else column.text(row, metric)
        for metric in metrics
        for column in columns_of(EXPORTS)
    ]


def _latex_number(cell: str) -> str:
    if cell == "-":
        return "--"
    # Math mode turns the hyphen into a minus sign, but would set words in italics
    if not any(character.isdigit() for character in cell):
        return escape_latex(cell)
    return f"${cell.replace('±', chr(92) + 'pm').replace('%', chr(92) + '%')}$"

"""The page's tables: their cells, the comparisons by metric, every trial of the plan, what the searches tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import polars.selectors as cs
from markupsafe import Markup, escape

from dmlcore.analysis.columns import HTML, Column, IntervalColumn, Row, columns_of, loss_text, seeds_text
from dmlcore.analysis.convergence import CURVE_COLUMN, convergence_mark, has_converged
from dmlcore.analysis.metric_labels import (
    METRICS,
    format_metric,
    format_percent,
    metric_label,
    one_line,
    round_significant,
    variant_label,
)
from dmlcore.analysis.searches import SEARCH_METRICS, search_trials, setting_text
from dmlcore.analysis.study import BASELINE, CELL_COLUMNS, Study, swept_axes

WORDS = {
    "failed": "\N{CROSS MARK} failed",
    "stopped": "\N{BLACK SCISSORS} cut short",
    "missing": "\N{WHITE QUESTION MARK ORNAMENT} missing",
    "better": "\N{BLACK UP-POINTING SMALL TRIANGLE}\N{NO-BREAK SPACE}better",
    "worse": "\N{BLACK DOWN-POINTING SMALL TRIANGLE}\N{NO-BREAK SPACE}worse",
}
"""Statuses and judgements that get a sign."""

NAME_LABELS = ("data set", "backbone", "loss")
OPTIONAL_COLUMNS = (*NAME_LABELS, "regulariser", "missing", "error", "converged")
"""Left out where they have one text in all rows: the tables are wide."""

TESTS_CAPTION = (
    "p: paired t-test; p (Holm): corrected for the comparisons of the same metric. Effect g: Hedges' g, the difference "
    "in standard deviations over seeds. Seeds needed: to see it with 80 % power at p < 0.05."
)
MAX_ROWS = 1_000
"""More make a browser slow."""

BEST_EPOCH = "validation/best_epoch"
TRIAL_COLUMNS = ("trial_key", "status", "error", *CELL_COLUMNS, "variant", "seed", BEST_EPOCH, CURVE_COLUMN)
SCORES = [f"test/{metric}" for metric in METRICS]


@dataclass(frozen=True)
class TableCell:
    text: str
    value: str | float | int | None = None
    """What sorting and a recount use; None: nothing known, always last."""
    note: str = ""
    """Shown smaller, after the text."""
    css_class: str = ""
    link: str | None = None
    images: Sequence[tuple[str, str]] = ()
    """(address of the image, its description)."""

    def html(self, label: Markup) -> str:
        sort_value = "" if self.value is None else f' data-value="{escape(self.value)}"'
        css_class = f' class="{escape(self.css_class)}"' if self.css_class else ""
        shown = str(escape(self.text))
        if self.link:
            shown = f'<a href="{escape(self.link)}" rel="noreferrer">{shown}</a>'
        images = "".join(
            f'<img src="{escape(address)}" alt="{escape(name)}" title="{escape(name)}">'
            for address, name in self.images
        )
        note = f" <small>{escape(self.note)}</small>" if self.note else ""
        return f'<td data-label="{label}"{sort_value}{css_class}>{images}{shown}{note}</td>\n'


@dataclass(frozen=True)
class TableRow:
    cells: Sequence[TableCell]
    names: Mapping[str, str] = field(default_factory=dict)
    """What the filters choose by: data set, backbone, loss, metric, status."""

    def html(self, labels: Sequence[Markup]) -> str:
        names = "".join(f' data-{name}="{escape(value)}"' for name, value in self.names.items())
        cells = "".join(cell.html(label) for cell, label in zip(self.cells, labels, strict=True))
        return f"<tr{names}>\n{cells}</tr>\n"


@dataclass(frozen=True)
class Table:
    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[TableRow]

    @property
    def body(self) -> Markup:
        """The rows as HTML."""
        # Not by the page's template: a macro call for each of many thousand cells takes seconds
        labels = [escape(column) for column in self.columns]
        return Markup("".join(row.html(labels) for row in self.rows))

    def without_constant_columns(self) -> Table:
        """Drop those of OPTIONAL_COLUMNS with one text in all rows; the caption then has it, unless it is empty."""
        texts = [{row.cells[i].text for row in self.rows} for i in range(len(self.columns))]
        constant = [
            i for i, found in enumerate(texts) if len(found) == 1 and self.columns[i] in OPTIONAL_COLUMNS
        ]
        constants = "; ".join(f"{self.columns[i]}: {text}" for i in constant for text in texts[i] if text)
        caption = f"{self.caption} In all rows: {constants}." if constants else self.caption
        kept = [i for i in range(len(self.columns)) if i not in constant]
        rows = [TableRow([row.cells[i] for i in kept], row.names) for row in self.rows]
        return Table(self.name, caption, [self.columns[i] for i in kept], rows)


def text_cell(value: object) -> TableCell:
    """Make a cell of text, sorted by it."""
    text = "" if value is None else " ".join(str(value).split())
    return TableCell(text, text or None)


def word_cell(word: str) -> TableCell:
    """Make a cell of a word that the style sheet has a class for."""
    return TableCell(WORDS.get(word, word), word, css_class=word)


def int_cell(value: int | None) -> TableCell:
    """Make a cell of a count."""
    return TableCell("-" if value is None else f"{value:,}", value)


def comparison_table(rows: Sequence[Row], confidence: float) -> Table:
    """Return one row a (comparison, metric), with the columns of `analysis.columns`."""
    columns = columns_of(HTML)
    labels = [*NAME_LABELS, "regulariser", "metric", "pairs"]
    labels += [*(column.label for column in columns), "missing"]
    caption = (
        f"Means and {format_percent(confidence)} t-intervals over seeds on the test classes; difference: "
        "variant \N{MINUS SIGN} baseline, paired by seed. Judged: better or worse where the interval of the difference "
        "excludes 0."
    )
    most = MAX_ROWS // len(METRICS)
    if len(rows) > most:
        caption += f" The first {most:,} of {len(rows):,} comparisons; all of them: results/comparisons.csv."
    # A row a metric, so that the page can filter and sort by it
    found = [_comparison(row, metric, columns) for row in rows[:most] for metric in METRICS]
    return Table("comparisons", f"{caption} {TESTS_CAPTION}", labels, found).without_constant_columns()


def _comparison(row: Row, metric: str, columns: Sequence[Column]) -> TableRow:
    alone, seeds = row["variant"] == BASELINE, seeds_text(row)
    cells = [
        *map(text_cell, (row["dataset"], row["backbone"], loss_text(row))),
        text_cell("baseline alone" if alone else variant_label(row["variant"])),
        text_cell(metric_label(metric)),
        TableCell(seeds, int(seeds.split()[0]), convergence_mark(row)),
        *(_column_cell(column, row, metric) for column in columns),
        text_cell(row["status"]),
    ]
    return TableRow(cells, _names(row) | {"metric": metric})


def _column_cell(column: Column, row: Row, metric: str) -> TableCell:
    value = column.sort_value(row, metric)
    if isinstance(value, str):  # a judgement
        return word_cell(value)
    if isinstance(column, IntervalColumn):
        text, note = column.mean_text(row, metric), column.range_text(row, metric)
        return TableCell(text, round_significant(value), note)
    return TableCell(column.text(row, metric), round_significant(value))


def trial_table(study: Study, run_link: str | None) -> Table:
    """Return one row a trial of the plan, those without a result first; of very many the first MAX_ROWS."""
    axes = swept_axes(study.trials)
    columns = [*NAME_LABELS, *axes.values(), "regulariser", "seed", "status", *map(metric_label, METRICS)]
    columns += ["best epoch", "converged", "trial", "error"]
    order = [pl.col("status") == "finished", *CELL_COLUMNS, "variant", "seed"]
    # A row of the table has hundreds of columns: turn the shown ones alone into dicts
    shown = study.trials.select(cs.by_name(*TRIAL_COLUMNS, *SCORES, *axes, require_all=False))
    trials = shown.sort(order, nulls_last=True, maintain_order=True).head(MAX_ROWS)
    many = shown.height > MAX_ROWS
    count = f"The first {MAX_ROWS:,} of {shown.height:,} trials" if many else "Every trial"
    caption = f"{count} of the plan; failed, cut short and missing ones first. They are in no mean."
    if many:
        caption += " All of them: results/trials.parquet, or `dmlcore export`."
    found = [_trial(trial, list(axes), run_link) for trial in trials.iter_rows(named=True)]
    return Table("trials", caption, columns, found).without_constant_columns()


def _trial(trial: Row, axes: Sequence[str], run_link: str | None) -> TableRow:
    flat, best = has_converged(trial.get(CURVE_COLUMN) or []), trial.get(BEST_EPOCH)
    converged = "-" if flat is None else ("yes" if flat else "\N{DAGGER} no")
    more = [int_cell(None if best is None else int(best)), text_cell(converged)]
    names = [trial[name] for name in (*CELL_COLUMNS, *axes)]
    return _trial_row(trial, run_link, names, [int_cell(trial["seed"])], SCORES, more)


def search_table(study: Study, run_link: str | None) -> Table | None:
    """Return one row a setting that a search tried, by validation alone, as nothing is chosen on test classes.

    None where nothing was searched.
    """
    rows = [row for tried in search_trials(study).values() for row in tried]
    if not rows:
        return None
    labels = [*NAME_LABELS, "regulariser", "asked", "role", "setting", "status"]
    labels += [*(f"validation {metric_label(metric)}" for metric in SEARCH_METRICS), "trial", "error"]
    caption = (
        "Every setting that a search tried, by validation. Only the chosen ones are compared, at all seeds; those that "
        "were cut short or not chosen are in no mean."
    )
    return Table("searches", caption, labels, [_searched(row, run_link) for row in rows])


def _searched(row: Row, run_link: str | None) -> TableRow:
    details = [int_cell(row["ask"]), text_cell(row["role"]), text_cell(setting_text(row))]
    names, metrics = [row[name] for name in CELL_COLUMNS], [f"validation/{m}" for m in SEARCH_METRICS]
    return _trial_row(row, run_link, names, details, metrics)


def _trial_row(
    trial: Row,
    run_link: str | None,
    names: Sequence[object],
    details: Sequence[TableCell],
    metrics: Sequence[str],
    more: Sequence[TableCell] = (),
) -> TableRow:
    """Make a row of names, variant, `details`, status, `metrics`, `more`, key and error."""
    key, status, scores = trial["trial_key"], trial["status"], [(trial.get(m), m) for m in metrics]
    link = None if run_link is None else run_link.replace("{trial_key}", key)
    cells = [
        *map(text_cell, (*names, variant_label(trial["variant"]))),
        *(*details, word_cell(status)),
        *(TableCell(format_metric(value, metric), round_significant(value)) for value, metric in scores),
        *(*more, TableCell(key, key, link=link), text_cell(one_line(trial["error"] or "", 300))),
    ]
    return TableRow(cells, _names(trial) | {"status": status})


def _names(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in CELL_COLUMNS}

"""The page's tables of trials: comparisons by metric, every trial of the plan, and what the searches tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import polars.selectors as cs

from dmlcore.analysis.columns import (
    HTML,
    Column,
    IntervalColumn,
    JudgementColumn,
    columns_of,
    loss_text,
    seeds_text,
)
from dmlcore.analysis.convergence import CURVE_COLUMN, convergence_mark, still_rising
from dmlcore.analysis.metric_labels import (
    METRICS,
    format_percent,
    metric_label,
    one_line,
    round_significant,
    variant_label,
)
from dmlcore.analysis.searches import SEARCH_METRICS, search_trials, setting_text
from dmlcore.analysis.study import BASELINE, CELL_COLUMNS, Study, swept_axes
from dmlcore.report.html.table import (
    Table,
    TableCell,
    TableRow,
    drop_constant_columns,
    float_cell,
    int_cell,
    text_cell,
)

STATUS_LABELS = {
    "finished": "finished",
    "failed": "\N{CROSS MARK} failed",
    "stopped": "\N{BLACK SCISSORS} cut short",
    "missing": "\N{WHITE QUESTION MARK ORNAMENT} missing",
}
JUDGEMENT_LABELS = {
    "better": "\N{BLACK UP-POINTING SMALL TRIANGLE}\N{NO-BREAK SPACE}better",
    "worse": "\N{BLACK DOWN-POINTING SMALL TRIANGLE}\N{NO-BREAK SPACE}worse",
}
OPTIONAL_COLUMNS = ("data set", "backbone", "loss", "regulariser", "missing", "error", "converged")
"""Left out where they have one text in all rows: the tables are wide."""

TESTS_CAPTION = (
    "p: paired t-test; p (Holm): corrected for the comparisons of the same metric. Effect g: Hedges' g, the difference "
    "in standard deviations over seeds. Seeds needed: to see it with 80 % power at p < 0.05."
)
MAX_ROWS = 1_000
"""More make a browser slow."""

BEST_EPOCH = "validation/best_epoch"
TRIAL_COLUMNS = (
    *("trial_key", "status", "error", *CELL_COLUMNS, "variant", "seed"),
    *(f"test/{metric}" for metric in METRICS),
    *(BEST_EPOCH, CURVE_COLUMN),
)


def comparison_table(rows: Sequence[Mapping[str, Any]], confidence: float) -> Table:
    """Return one row a (comparison, metric), with the columns of `analysis.columns`."""
    columns = columns_of(HTML)
    names = ["data set", "backbone", "loss", "regulariser", "metric", "pairs"]
    labels = [*names, *(column.label for column in columns), "missing"]
    caption = (
        f"Means and {format_percent(confidence)} t-intervals over seeds on the test classes; difference: "
        "variant \N{MINUS SIGN} baseline, paired by seed. Judged: better or worse where the interval of the difference "
        "leaves out 0."
    )
    most = MAX_ROWS // len(METRICS)
    if len(rows) > most:
        caption += f" The first {most:,} of {len(rows):,} comparisons; all of them: results/comparisons.csv."
    found = [_comparison(row, metric, columns) for row in rows[:most] for metric in METRICS]
    return drop_constant_columns(
        Table("comparisons", f"{caption} {TESTS_CAPTION}", labels, found), OPTIONAL_COLUMNS
    )


def trial_table(study: Study, run_link: str | None) -> Table:
    """Return one row a trial of the plan, those without a result first; of very many the first MAX_ROWS."""
    axes = swept_axes(study.trials)
    columns = ["data set", "backbone", "loss", *axes.values(), "regulariser", "seed", "status"]
    columns += [*map(metric_label, METRICS), "best epoch", "converged", "trial", "error"]
    order = [pl.col("status") == "finished", *CELL_COLUMNS, "variant", "seed"]
    # A row of the table has hundreds of columns: turn the shown ones alone into dicts
    shown = study.trials.select(cs.by_name(*TRIAL_COLUMNS, *axes, require_all=False))
    trials = shown.sort(order, nulls_last=True, maintain_order=True).head(MAX_ROWS).to_dicts()
    count = (
        "Every trial" if shown.height <= MAX_ROWS else f"The first {MAX_ROWS:,} of {shown.height:,} trials"
    )
    caption = f"{count} of the plan; failed, cut short and missing ones first. They are in no mean."
    if shown.height > MAX_ROWS:
        caption += " All of them: results/trials.parquet, or `dmlcore export`."
    found = [_trial(trial, list(axes), run_link) for trial in trials]
    return drop_constant_columns(Table("trials", caption, columns, found), OPTIONAL_COLUMNS)


def search_table(study: Study, run_link: str | None) -> Table | None:
    """Return one row a setting that a search tried, by validation alone, as nothing is chosen on test classes.

    Returns:
        None where nothing was searched.
    """
    rows = [row for tried in search_trials(study).values() for row in tried]
    if not rows:
        return None
    labels = ["data set", "backbone", "loss", "regulariser", "asked", "role", "setting", "status"]
    labels += [*(f"validation {metric_label(metric)}" for metric in SEARCH_METRICS), "trial", "error"]
    return Table(
        "searches",
        "Every setting that a search tried, by validation. Only the chosen ones are compared, at all seeds; those that "
        "were cut short or not chosen are in no mean.",
        labels,
        [_searched(row, run_link) for row in rows],
    )


def _comparison(row: Mapping[str, Any], metric: str, columns: Sequence[Column]) -> TableRow:
    # A row a metric, so that the page can filter and sort by it
    alone, seeds = row["variant"] == BASELINE, seeds_text(row)
    cells = [
        text_cell(row["dataset"]),
        text_cell(row["backbone"]),
        text_cell(loss_text(row)),
        text_cell("baseline alone" if alone else variant_label(row["variant"])),
        text_cell(metric_label(metric)),
        TableCell(seeds, int(seeds.split()[0]), convergence_mark(row)),
        *(_column_cell(column, row, metric) for column in columns),
        text_cell(row["status"]),
    ]
    return TableRow(cells, _names(row) | {"metric": metric})


def _column_cell(column: Column, row: Mapping[str, Any], metric: str) -> TableCell:
    value = column.sort_value(row, metric)
    if isinstance(column, JudgementColumn):
        return TableCell(JUDGEMENT_LABELS.get(value, value), value, css_class=value)
    if isinstance(column, IntervalColumn):
        text, note = column.mean_text(row, metric), column.range_text(row, metric)
        return TableCell(text, round_significant(value), note)
    return TableCell(column.text(row, metric), round_significant(value))


def _trial(trial: Mapping[str, Any], axes: Sequence[str], run_link: str | None) -> TableRow:
    rising, best = still_rising(trial.get(CURVE_COLUMN) or []), trial.get(BEST_EPOCH)
    cells = [
        *(text_cell(trial[name]) for name in (*CELL_COLUMNS, *axes)),
        text_cell(variant_label(trial["variant"])),
        int_cell(trial["seed"]),
        _status_cell(trial["status"]),
        *(float_cell(trial.get(f"test/{metric}"), metric) for metric in METRICS),
        int_cell(None if best is None else int(best)),
        text_cell("-" if rising is None else ("\N{DAGGER} no" if rising else "yes")),
        *_key_and_error(trial, run_link),
    ]
    return TableRow(cells, _names(trial) | {"status": trial["status"]})


def _searched(row: Mapping[str, Any], run_link: str | None) -> TableRow:
    cells = [
        *(text_cell(row[name]) for name in CELL_COLUMNS),
        text_cell(variant_label(row["variant"])),
        int_cell(row["ask"]),
        text_cell(row["role"]),
        text_cell(setting_text(row)),
        _status_cell(row["status"]),
        *(float_cell(row.get(f"validation/{metric}"), metric) for metric in SEARCH_METRICS),
        *_key_and_error(row, run_link),
    ]
    return TableRow(cells, _names(row) | {"status": row["status"]})


def _status_cell(status: str) -> TableCell:
    return TableCell(STATUS_LABELS.get(status, status), status, css_class=status)


def _key_and_error(trial: Mapping[str, Any], run_link: str | None) -> list[TableCell]:
    key = trial["trial_key"]
    link = None if run_link is None else run_link.replace("{trial_key}", key)
    return [TableCell(key, key, link=link), text_cell(one_line(trial["error"] or "", 300))]


def _names(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in CELL_COLUMNS}

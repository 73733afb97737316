"""The table of what the searches tried: validation alone, since nothing is chosen on test classes."""

from __future__ import annotations

from typing import Any

from dmlcore.analysis.metric_labels import metric_label, one_line, variant_label
from dmlcore.analysis.searches import SEARCH_METRICS, search_trials, setting_text
from dmlcore.analysis.study import CELL_COLUMNS, Study
from dmlcore.report.html.table import Table, TableCell, TableRow, float_cell, int_cell, text_cell
from dmlcore.report.html.trials import STATUSES


def search_table(study: Study, run_link: str | None) -> Table | None:
    """One row a setting; None where nothing was searched."""
    rows = [row for tried in search_trials(study).values() for row in tried]
    if not rows:
        return None
    return Table(
        "searches",
        "Every setting that a search tried, by validation. The chosen ones alone are compared, at all seeds; those "
        "that were cut short or not chosen are in no mean.",
        [
            *("data set", "backbone", "loss", "regulariser", "asked", "role", "setting", "status"),
            *(f"validation {metric_label(metric)}" for metric in SEARCH_METRICS),
            *("trial", "what is wrong"),
        ],
        [_row(row, run_link) for row in rows],
    )


def _row(row: Any, run_link: str | None) -> TableRow:
    key, status = row["trial_key"], row["status"]
    cells = [
        *(text_cell(row[name]) for name in CELL_COLUMNS),
        text_cell(variant_label(row["variant"])),
        int_cell(row["ask"]),
        text_cell(row["role"]),
        text_cell(setting_text(row)),
        TableCell(STATUSES.get(status, status), status, css_class=status),
        *(float_cell(row.get(f"validation/{metric}"), metric) for metric in SEARCH_METRICS),
        TableCell(key, key, link=None if run_link is None else run_link.replace("{trial_key}", key)),
        text_cell(one_line(row["error"] or "", 300)),
    ]
    return TableRow(cells, {name: row[name] for name in CELL_COLUMNS} | {"status": status})

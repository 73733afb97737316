"""The table of what the searches tried: validation alone, since nothing is chosen on test classes."""

from __future__ import annotations

from typing import Any

from dmlcore.analysis.metric_labels import label, one_line, short_variant
from dmlcore.analysis.searches import SHOWN, searches, setting
from dmlcore.analysis.study import CELL, Study
from dmlcore.report.html.table import Row, Table, Value, measured, text, whole
from dmlcore.report.html.trials import STATUSES


def search_table(study: Study, run_link: str | None) -> Table | None:
    """One row a setting; None where nothing was searched."""
    rows = [row for tried in searches(study).values() for row in tried]
    if not rows:
        return None
    return Table(
        "searches",
        "Every setting that a search tried, by validation. The chosen ones alone are compared, at all seeds; those "
        "that were cut short or not chosen are in no mean.",
        [
            *("data set", "backbone", "loss", "regulariser", "asked", "role", "setting", "status"),
            *(f"validation {label(metric)}" for metric in SHOWN),
            *("trial", "what is wrong"),
        ],
        [_row(row, run_link) for row in rows],
    )


def _row(row: Any, run_link: str | None) -> Row:
    key, status = row["trial_key"], row["status"]
    cells = [
        *(text(row[name]) for name in CELL),
        text(short_variant(row["variant"])),
        whole(row["ask"]),
        text(row["role"]),
        text(setting(row)),
        Value(STATUSES.get(status, status), status, word=status),
        *(measured(row.get(f"validation/{metric}"), metric) for metric in SHOWN),
        Value(key, key, link=None if run_link is None else run_link.replace("{trial_key}", key)),
        text(one_line(row["error"] or "", 300)),
    ]
    return Row(cells, {name: row[name] for name in CELL} | {"status": status})

"""The table of trials: a row per planned trial, with what its record holds."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from dmlcore.config.base import canonical
from dmlcore.records import CURVE, TrialRecord, flatten
from dmlcore.sweep.plan import Plan

CURVES = (CURVE, "validation/opis_corrected")
"""Metrics of each epoch that the table has."""


def plan_rows(plan: Plan) -> list[tuple[str, dict[str, Any], dict[str, Any], TrialRecord | None]]:
    """Return the rows of `trials_table` for a plan; a trial that waits for another has a word in place of its key."""
    found = [(trial.key, trial.cell, plan.records.get(trial.key)) for trial in plan.trials]
    rows = [
        (
            key,
            cell.labels | {f"search/{path}": value for path, value in cell.searched.items()} | cell.notes,
            canonical(cell.config),
            record,
        )
        for key, cell, record in found
    ]
    for waiting in plan.waiting:
        state = {"status": "failed" if waiting.failed else "missing", "error": waiting.reason}
        rows.append((waiting.key, waiting.cell.labels | state, canonical(waiting.cell.config), None))
    return rows


def trials_table(
    rows: Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any], TrialRecord | None]],
) -> pl.DataFrame:
    """Build the table of trials: one row per planned trial, sorted by key.

    Args:
        rows: (trial key, labels of the cell, canonical config, its record or None). Labels may be followed by further
            columns, and by `status` and `error` of a trial without a record.

    Returns:
        Columns `trial_key, status, error`, the labels, `config/...`, the metrics, `utility/...` and
        `curve/NAME` for CURVES, lists from epoch 0 (untrained) on. A trial without a record has status `missing`.
        No dates, seconds or host names: the same records give the same table.
    """
    flat = [_row(*row) for row in sorted(rows, key=lambda row: row[0])]
    names = dict.fromkeys(name for row in flat for name in row)
    columns = sorted(
        names, key=lambda name: name if "/" in name else ""
    )  # the leading ones stay in their order
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in flat], infer_schema_length=None)


def _row(
    key: str, labels: Mapping[str, Any], config: Mapping[str, Any], record: TrialRecord | None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "trial_key": key,
        "status": record.status if record else "missing",
        "error": record.error if record else "not run yet",
        **labels,
        **{f"config/{path}": value for path, value in flatten(config).items()},
    }
    if record and record.status == "finished":
        row |= record.metrics
        row |= {f"utility/{name}": values for name, values in record.utility.items()}
        # Epochs on training and validation classes together (`train.final`) have no validation
        if validated := [number for number, epoch in enumerate(record.curve) if CURVE in epoch]:
            epochs = record.curve[: validated[-1] + 1]
            row |= {f"curve/{name}": [epoch.get(name) for epoch in epochs] for name in CURVES}
    return row


def table_bytes(table: pl.DataFrame) -> bytes:
    """Return the table as a parquet file."""
    content = io.BytesIO()  # polars itself calls a full disk a file out of specification
    table.write_parquet(content)
    return content.getvalue()

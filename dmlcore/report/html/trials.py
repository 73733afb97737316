"""The tables of trials: comparisons, one row a comparison and metric; and every trial of the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import polars.selectors as cs

from dmlcore.analysis.convergence import CURVE_COLUMN, convergence_mark, still_rising
from dmlcore.analysis.metric_labels import (
    METRICS,
    format_percent,
    metric_label,
    one_line,
    round_significant,
    variant_label,
)
from dmlcore.analysis.study import BASELINE, CELL_COLUMNS, Study, swept_axes
from dmlcore.analysis.verdict import judgement
from dmlcore.report.html.table import (
    Table,
    TableCell,
    TableRow,
    drop_constant_columns,
    float_cell,
    int_cell,
    interval_cell,
    text_cell,
)

STATUSES = {
    "finished": "finished",
    "failed": "\N{CROSS MARK} failed",
    "stopped": "\N{BLACK SCISSORS} cut short",
    "missing": "\N{WHITE QUESTION MARK ORNAMENT} missing",
}
WORDS = {
    "better": "\N{BLACK UP-POINTING SMALL TRIANGLE}\N{NO-BREAK SPACE}better",
    "worse": "\N{BLACK DOWN-POINTING SMALL TRIANGLE}\N{NO-BREAK SPACE}worse",
}


NAMES = ("data set", "backbone", "loss", "regulariser", "missing", "what is wrong", "converged")
"""Columns that are left out where they say one thing in every row: the tables are wide."""


TESTS = {
    "p_value": "p",
    "p_holm": "p (Holm)",
    "effect_size": "effect g",
    "seeds_needed": "seeds needed",
}
"""Columns of `test/M/difference/...` that are shown where a comparison has them."""


TESTED = (
    " p: paired t-test; p (Holm): corrected for the comparisons of the same metric. Effect g: Hedges' g, the "
    "difference in standard deviations over seeds. Seeds needed: to see it with 80 % power at p < 0.05."
)


MOST_ROWS = 1_000
"""More make a browser slow."""


BEST_EPOCH = "validation/best_epoch"
SHOWN = (
    *("trial_key", "status", "error", *CELL_COLUMNS, "variant", "seed"),
    *(f"test/{metric}" for metric in METRICS),
    *(BEST_EPOCH, CURVE_COLUMN),
)


def comparison_table(rows: Sequence[Mapping[str, Any]], confidence: float) -> Table:
    """One row a (comparison, metric): both means, the paired difference and its tests."""
    tests = [name for name in TESTS if rows and f"test/map_at_r/difference/{name}" in rows[0]]
    columns = [
        "data set",
        "backbone",
        "loss",
        "regulariser",
        "metric",
        "pairs",
        "baseline",
        "on",
        "on \N{MINUS SIGN} off",
    ]
    columns += ["change", "judged", *(TESTS[name] for name in tests), "missing"]
    level = format_percent(confidence)
    caption = (
        f"Means and {level} t-intervals over seeds on the test classes; differences paired by seed. Judged: better or "
        "worse where the interval of the difference leaves out 0."
    )
    most = MOST_ROWS // len(METRICS)
    if len(rows) > most:
        caption += f" The first {most:,} of {len(rows):,} comparisons; all of them: results/comparisons.csv."
    found = [_comparison(row, metric, tests) for row in rows[:most] for metric in METRICS]
    return drop_constant_columns(
        Table("comparisons", caption + (TESTED if tests else ""), columns, found), NAMES
    )


def trial_table(study: Study, run_link: str | None) -> Table:
    """One row a trial of the plan, those without a result first; of very many the first MOST_ROWS."""
    axes = swept_axes(study.trials)
    columns = ["data set", "backbone", "loss", *axes.values(), "regulariser", "seed", "status"]
    columns += [*(metric_label(m) for m in METRICS), "best epoch", "converged", "trial", "what is wrong"]
    order = [pl.col("status") == "finished", *CELL_COLUMNS, "variant", "seed"]
    shown = study.trials.select(cs.by_name(*SHOWN, *axes, require_all=False))  # a row has hundreds of columns
    trials = shown.sort(order, nulls_last=True, maintain_order=True).head(MOST_ROWS).to_dicts()
    count = (
        "Every trial" if shown.height <= MOST_ROWS else f"The first {MOST_ROWS:,} of {shown.height:,} trials"
    )
    caption = f"{count} of the plan; failed, cut short and missing ones first. They are in no mean."
    if shown.height > MOST_ROWS:
        caption += " All of them: results/trials.parquet, or `dmlcore export`."
    found = [_trial(trial, list(axes), run_link) for trial in trials]
    return drop_constant_columns(Table("trials", caption, columns, found), NAMES)


def _comparison(row: Mapping[str, Any], metric: str, tests: Sequence[str]) -> TableRow:
    name, baseline_alone = f"test/{metric}", row["variant"] == BASELINE
    axes = [f"{key.removeprefix('axis/')}={value}" for key, value in row.items() if key.startswith("axis/")]
    counted = row["seeds/baseline" if baseline_alone else "seeds/paired"]
    pairs = TableCell(f"{counted} of {row['seeds/planned']}", counted, convergence_mark(row))
    relative = row[f"{name}/difference/relative"]
    cells = [
        text_cell(row["dataset"]),
        text_cell(row["backbone"]),
        text_cell(", ".join([row["loss"], *axes])),
        text_cell("baseline alone" if baseline_alone else variant_label(row["variant"])),
        text_cell(metric_label(metric)),
        pairs,
        interval_cell(row, f"{name}/baseline", metric),
        TableCell("-") if baseline_alone else interval_cell(row, f"{name}/variant", metric),
        interval_cell(row, f"{name}/difference", metric, signed=True),
        TableCell(
            "-" if relative is None else f"{100 * relative:+.1f}\N{NO-BREAK SPACE}%",
            round_significant(relative),
        ),
        _judged(judgement(row, metric)),
        *(_tested(test, row[f"{name}/difference/{test}"]) for test in tests),
        text_cell(row["status"]),
    ]
    return TableRow(cells, _names(row) | {"metric": metric})


def _judged(word: str) -> TableCell:
    return TableCell(WORDS.get(word, word), word, css_class=word)


def _tested(test: str, value: float | None) -> TableCell:
    if value is None:
        return TableCell("-")
    shown = {"seeds_needed": f"{value:,.0f}", "effect_size": f"{value:+.2f}"}.get(test, f"{value:.3g}")
    return TableCell(shown, round_significant(value))


def _trial(trial: Mapping[str, Any], axes: Sequence[str], run_link: str | None) -> TableRow:
    status, key = trial["status"], trial["trial_key"]
    rising = still_rising(trial.get(CURVE_COLUMN) or [])
    best = trial.get(BEST_EPOCH)
    cells = [
        text_cell(trial["dataset"]),
        text_cell(trial["backbone"]),
        text_cell(trial["loss"]),
        *(text_cell(trial[axis]) for axis in axes),
        text_cell(variant_label(trial["variant"])),
        int_cell(trial["seed"]),
        TableCell(STATUSES.get(status, status), status, css_class=status),
        *(float_cell(trial.get(f"test/{metric}"), metric) for metric in METRICS),
        int_cell(None if best is None else int(best)),
        text_cell("-" if rising is None else ("\N{DAGGER} no" if rising else "yes")),
        TableCell(key, key, link=None if run_link is None else run_link.replace("{trial_key}", key)),
        text_cell(one_line(trial["error"] or "", 300)),
    ]
    return TableRow(cells, _names(trial) | {"status": status})


def _names(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in CELL_COLUMNS}

"""What the comparisons say, in a sentence made from the numbers, and what that sentence leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from dmlcore.analysis.convergence import convergence_note
from dmlcore.analysis.metric_labels import METRICS, format_metric, format_percent, metric_label, one_line
from dmlcore.analysis.study import BASELINE, CELL_COLUMNS, Study

Row = Mapping[str, Any]
FEW_SEEDS = 2


NAMED = 4
"""Configurations that a caveat names before it counts."""


def judgement(row: Row, metric: str) -> str:
    """`better` or `worse` if the interval of the paired difference leaves out 0, else `unclear`; `-` without one."""
    low, high = row[f"test/{metric}/difference/low"], row[f"test/{metric}/difference/high"]
    if low is None or high is None:
        return "-"
    if low <= 0 <= high:
        return "unclear"
    return "better" if (low > 0) == METRICS[metric].higher_is_better else "worse"


def verdict(rows: Sequence[Row], confidence: float) -> str:
    """One sentence: how often OPIS fell, how sure that is, and what accuracy did.

    Args:
        rows: of `comparisons`, as dicts.
        confidence: level of their intervals.
    """
    compared = [row for row in rows if row["test/opis/difference/mean"] is not None]
    if rows and all(row["variant"] == BASELINE for row in rows):
        return "One variant alone (baseline): nothing to compare."
    if not compared:
        return "No comparison yet: no seed finished both with and without the regulariser."
    name = "TCM" if all(row["variant"].startswith("tcm") for row in compared) else "The regularisers"
    first = (
        f"{name} lowered OPIS in {_fell(compared, 'opis')} comparison{'s' if len(compared) > 1 else ''} "
        f"({format_percent(confidence)} interval of the paired difference {_signs(compared, 'opis')})"
    )
    corrected = [row for row in compared if row["test/opis_corrected/difference/mean"] is not None]
    if corrected:
        floor = f"{_fell(corrected, 'opis_corrected')} ({_signs(corrected, 'opis_corrected')})"
        first += f", OPIS corrected for its small-class floor in {floor}"
    return "; ".join([first, *(_change(compared, metric) for metric in ("map_at_r", "recall_at_1"))]) + "."


def caveats(study: Study, rows: Sequence[Row]) -> list[str]:
    """What a reader of the verdict must know: unfinished trials, unlearned configurations, number of comparisons."""
    notes = [*_unfinished(study), *_unlearned(rows)]
    if convergence := convergence_note(study):
        notes.append(convergence)
    rows = [row for row in rows if row["variant"] != BASELINE]
    lone = sum(row["test/opis/difference/mean"] is None for row in rows)
    if lone:
        notes.append(f"{lone} of {len(rows)} rows have no pair of finished seeds to compare.")
    few = sum(0 < row["seeds/paired"] < FEW_SEEDS for row in rows)
    if few:
        notes.append(f"{few} of {len(rows)} rows have one pair of seeds only, so no interval.")
    if len(rows) > 1:
        notes.append(
            "Each interval is of one comparison taken alone; corrected for all "
            f"{len(rows)} of a metric (Holm) are the p-values: p (Holm) in report.html, p_holm in comparisons.csv."
        )
    return notes


def _fell(rows: Sequence[Row], metric: str) -> str:
    return f"{sum(row[f'test/{metric}/difference/mean'] < 0 for row in rows)} of {len(rows)}"


def _signs(rows: Sequence[Row], metric: str) -> str:
    lows = [row[f"test/{metric}/difference/low"] for row in rows]
    highs = [row[f"test/{metric}/difference/high"] for row in rows]
    below = sum(high is not None and high < 0 for high in highs)
    above = sum(low is not None and low > 0 for low in lows)
    return f"below 0 in {below}, above 0 in {above}"


def _change(rows: Sequence[Row], metric: str) -> str:
    found = [row for row in rows if row[f"test/{metric}/difference/mean"] is not None]
    if not found:
        return f"{metric_label(metric)} was not measured"
    means = [row[f"test/{metric}/difference/mean"] for row in found]
    ends = list(dict.fromkeys(format_metric(end, metric, signed=True) for end in (min(means), max(means))))
    return f"{metric_label(metric)} changed by {' to '.join(ends)} (interval {_signs(found, metric)})"


def _unfinished(study: Study) -> list[str]:
    lost = study.trials.filter(pl.col("status") != "finished").sort(*CELL_COLUMNS, "variant", "seed")
    if lost.is_empty():
        return []
    groups: dict[tuple[str, str], list[str]] = {}
    for row in lost.iter_rows(named=True):
        who = " ".join([row["status"], *(row[name] for name in (*CELL_COLUMNS, "variant"))])
        groups.setdefault((who, one_line(row["error"] or "", 120)), []).append(str(row["seed"]))
    head = f"{lost.height} of {study.trials.height} trials are not finished and not in the means:"
    return [head, *(_group(who, error, seeds) for (who, error), seeds in groups.items())]


def _group(who: str, error: str, seeds: Sequence[str]) -> str:
    plural = "seeds" if len(seeds) > 1 else "seed"
    return f"  {who} {plural} {', '.join(seeds)}" + (f": {error}" if error else "")


def _unlearned(rows: Sequence[Row]) -> list[str]:
    flat = dict.fromkeys(
        f"{row['backbone']} {row['loss']} {BASELINE if side == 'baseline' else row['variant']} on {row['dataset']}"
        for row in rows
        for side in ("baseline", "variant")
        if row[f"{side}/beats_untrained"] is False
    )
    if flat:
        named, more = list(flat)[:NAMED], len(flat) - NAMED
        rest = f"; and {more} more (beats_untrained in comparisons.csv)" if more > 0 else ""
        return [f"Below raw pixels or its own untrained network in MAP@R or R@1: {'; '.join(named)}{rest}."]
    if any(row[f"{side}/beats_untrained"] is None for row in rows for side in ("baseline", "variant")):
        return []
    return ["Every configuration beats raw pixels and its own untrained network in MAP@R and R@1."]

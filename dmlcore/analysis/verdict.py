"""What the comparisons say, in one sentence made from the numbers, and the caveats that it leaves open."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from dmlcore.analysis.columns import Row
from dmlcore.analysis.convergence import convergence_note
from dmlcore.analysis.metric_labels import format_metric, format_percent, metric_label, one_line
from dmlcore.analysis.study import BASELINE, CELL_COLUMNS, Study

MIN_INTERVAL_SEEDS = 2
MAX_NAMED = 4
"""Configurations that a caveat names before it counts the rest."""


def verdict(rows: Sequence[Row], confidence: float) -> str:
    """Say how often OPIS fell, how sure that is, and what accuracy did.

    Args:
        rows: of `comparisons`, as dicts.
        confidence: level of their intervals.
    """
    compared = _with_difference(rows, "opis")
    if rows and all(row["variant"] == BASELINE for row in rows):
        return "One variant alone (baseline): nothing to compare."
    if not compared:
        return "No comparison yet: no seed finished both with and without the regulariser."
    name = "TCM" if all(row["variant"].startswith("tcm") for row in compared) else "The regularisers"
    first = (
        f"{name} lowered OPIS in {_count_lowered(compared, 'opis')} comparison{'s' if len(compared) > 1 else ''} "
        f"({format_percent(confidence)} interval of the paired difference {_interval_signs(compared, 'opis')})"
    )
    if corrected := _with_difference(rows, "opis_corrected"):
        lowered, signs = (count(corrected, "opis_corrected") for count in (_count_lowered, _interval_signs))
        first += f", OPIS corrected for its small-class floor in {lowered} ({signs})"
    return "; ".join([first, *(_range_of_changes(compared, m) for m in ("map_at_r", "recall_at_1"))]) + "."


def caveats(study: Study, rows: Sequence[Row]) -> list[str]:
    """Say what limits the verdict: unfinished trials, configurations that did not learn, number of comparisons."""
    notes = [*_unfinished_trials(study), *_untrained_caveat(rows)]
    if convergence := convergence_note(study):
        notes.append(convergence)
    rows = [row for row in rows if row["variant"] != BASELINE]
    unpaired = len(rows) - len(_with_difference(rows, "opis"))
    if unpaired:
        notes.append(f"{unpaired} of {len(rows)} rows have no pair of finished seeds to compare.")
    few = sum(0 < row["seeds/paired"] < MIN_INTERVAL_SEEDS for row in rows)
    if few:
        notes.append(f"{few} of {len(rows)} rows have one pair of seeds only, so no interval.")
    if len(rows) > 1:
        notes.append(
            "Each interval is for one comparison taken alone. The p-values corrected for all "
            f"{len(rows)} comparisons of a metric (Holm) are p (Holm) in report.html and p_holm in comparisons.csv."
        )
    return notes


def _with_difference(rows: Sequence[Row], metric: str) -> list[Row]:
    return [row for row in rows if row[f"test/{metric}/difference/mean"] is not None]


def _count_lowered(rows: Sequence[Row], metric: str) -> str:
    return f"{sum(row[f'test/{metric}/difference/mean'] < 0 for row in rows)} of {len(rows)}"


def _interval_signs(rows: Sequence[Row], metric: str) -> str:
    lows = [row[f"test/{metric}/difference/low"] for row in rows]
    highs = [row[f"test/{metric}/difference/high"] for row in rows]
    below = sum(high is not None and high < 0 for high in highs)
    above = sum(low is not None and low > 0 for low in lows)
    return f"below 0 in {below}, above 0 in {above}"


def _range_of_changes(rows: Sequence[Row], metric: str) -> str:
    found = _with_difference(rows, metric)
    if not found:
        return f"{metric_label(metric)} was not measured"
    means = [row[f"test/{metric}/difference/mean"] for row in found]
    ends = list(dict.fromkeys(format_metric(end, metric, signed=True) for end in (min(means), max(means))))
    return (
        f"{metric_label(metric)} changed by {' to '.join(ends)} (interval {_interval_signs(found, metric)})"
    )


def _unfinished_trials(study: Study) -> list[str]:
    """Name the unfinished trials, those of one configuration and error together."""
    lost = study.trials.filter(pl.col("status") != "finished").sort(*CELL_COLUMNS, "variant", "seed")
    if lost.is_empty():
        return []
    groups: dict[tuple[str, str], list[str]] = {}
    for row in lost.iter_rows(named=True):
        trials = " ".join([row["status"], *(row[name] for name in (*CELL_COLUMNS, "variant"))])
        groups.setdefault((trials, one_line(row["error"] or "", 120)), []).append(str(row["seed"]))
    head = f"{lost.height} of {study.trials.height} trials are not finished and not in the means:"
    return [
        head,
        *(
            f"  {trials} seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
            + (f": {error}" if error else "")
            for (trials, error), seeds in groups.items()
        ),
    ]


def _untrained_caveat(rows: Sequence[Row]) -> list[str]:
    """Name the configurations that learned nothing; say so where all learned; nothing where it is not known."""
    sides = [(row, side) for row in rows for side in ("baseline", "variant")]
    below = list(
        dict.fromkeys(
            f"{row['backbone']} {row['loss']} {BASELINE if side == 'baseline' else row['variant']} on {row['dataset']}"
            for row, side in sides
            if row[f"{side}/beats_untrained"] is False
        )
    )
    if below:
        more = len(below) - MAX_NAMED
        rest = f"; and {more} more (beats_untrained in comparisons.csv)" if more > 0 else ""
        names = "; ".join(below[:MAX_NAMED])
        return [f"Below raw pixels or its own untrained network in MAP@R or R@1: {names}{rest}."]
    if any(row[f"{side}/beats_untrained"] is None for row, side in sides):
        return []
    return ["Every configuration beats raw pixels and its own untrained network in MAP@R and R@1."]

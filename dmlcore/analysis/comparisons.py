"""Each variant against `baseline`: means, t-intervals and paired differences over seeds."""

from __future__ import annotations

from typing import Any

import polars as pl

from dmlcore.analysis.convergence import count_converged
from dmlcore.analysis.metric_labels import METRICS, one_line
from dmlcore.analysis.paired_tests import add_holm, add_seeds_needed, paired_columns
from dmlcore.analysis.protocol import protocol_line
from dmlcore.analysis.statistics import Estimate, paired_difference, t_interval
from dmlcore.analysis.study import BASELINE, CELL_COLUMNS, Cell, Study, cached_per_study

JUDGED = ("map_at_r", "recall_at_1")
"""What a configuration must raise above raw pixels and its own untrained network, to count as having learned."""


@cached_per_study
def comparisons(study: Study) -> pl.DataFrame:
    """One row a (cell, variant) against variant `baseline` of the same cell; a cell whose only variant is `baseline` has one row for it.

    Columns:
        `dataset`, `backbone`, `loss`, `variant`; `axis/PATH`: each config path that was swept besides these (as text).
        `seeds/planned`, `seeds/baseline`, `seeds/variant`, `seeds/paired`: trials of the variant in the plan, finished with off,
        finished with the variant, finished in both.
        For each metric M of METRICS, on the test split:
        `test/M/baseline/mean|low|high` and `test/M/variant/...`: mean and t-interval over all finished seeds of that side;
        `test/M/difference/mean|low|high`: variant - baseline over the paired seeds; `.../relative`: over mean(baseline);
        `.../p_value|p_holm|effect_size|seeds_needed`: paired t-test, Holm's correction over the study, Hedges' g,
        pairs of seeds at which such a difference is seen with power 0.8 (`paired_tests`).
        `untrained/M`, `raw_pixels/M` for M = map_at_r, recall_at_1: what there was before training.
        `baseline/beats_untrained`, `variant/beats_untrained`: the means of both M exceed both baselines.
        `baseline/converged`, `variant/converged`: finished trials no longer rising (`convergence.still_rising`), or null.
        `status`: what is missing (failed, stopped, missing seeds; metrics without a value); null if nothing is.
        `protocol`. Means are null without a seed, intervals below 2 seeds.
    """
    rows = [comparison(study, cell, variant) for cell in study.cells for variant in compared_variants(cell)]
    rows = add_seeds_needed(add_holm(rows, tuple(METRICS)), tuple(METRICS))
    texts = dict.fromkeys((*CELL_COLUMNS, "variant", "status", "protocol"), pl.String)
    counts = dict.fromkeys(("baseline/converged", "variant/converged"), pl.Int64)
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={**texts, **counts})


def compared_variants(cell: Cell) -> list[str]:
    """The variants that get a row: all but `baseline`, or `baseline` where it is alone."""
    return [variant for variant in cell.variants if variant != BASELINE] or [BASELINE]


def comparison(study: Study, cell: Cell, variant: str) -> dict[str, Any]:
    """The row of `variant` in `cell`."""
    row: dict[str, Any] = {
        "dataset": cell.dataset,
        "backbone": cell.backbone,
        "loss": cell.loss,
        "variant": variant,
    }
    row |= {f"axis/{path}": None if value is None else str(value) for path, value in cell.axes.items()}
    row |= _seed_counts(cell, variant)
    for metric in METRICS:
        row |= _metric_columns(cell, variant, f"test/{metric}", study.config.confidence)
    row |= _baseline_columns(study, cell)
    row |= {f"{side}/beats_untrained": _beats(row, side) for side in ("baseline", "variant")}
    row |= {
        f"{side}/converged": count_converged(cell, name)
        for side, name in (("baseline", BASELINE), ("variant", variant))
    }
    return row | {"status": status_note(cell, variant), "protocol": protocol_line(study, cell.dataset)}


def status_note(cell: Cell, variant: str) -> str | None:
    """What keeps the row of `variant` from resting on all planned seeds of both sides."""
    notes = [] if BASELINE in cell.variants else ["no variant baseline in the plan"]
    for side in dict.fromkeys((BASELINE, variant)):
        notes += [f"{side}: {text}" for text in _unfinished(cell, side)]
        notes += [f"{side}: {text}" for text in _valueless(cell, side)]
    return "; ".join(notes) or None


def _unfinished(cell: Cell, variant: str) -> list[str]:
    if variant not in cell.variants or cell.finished[variant].height == cell.variants[variant].height:
        return []
    lost = cell.variants[variant].filter(pl.col("status") != "finished").select("seed", "status", "error")
    return [
        f"seed {seed} {status}" + (f" ({one_line(error, 80)})" if error and status == "failed" else "")
        for seed, status, error in lost.iter_rows()
    ]


def _valueless(cell: Cell, variant: str) -> list[str]:
    finished = _finished(cell, variant)
    counts = {metric: len(cell.values(variant, f"test/{metric}")) for metric in METRICS}
    return [f"test/{m} of {n} of {len(finished)} seeds" for m, n in counts.items() if n < len(finished)]


def _finished(cell: Cell, variant: str) -> set[int]:
    return set(cell.finished[variant]["seed"]) if variant in cell.variants else set()


def _seed_counts(cell: Cell, variant: str) -> dict[str, int]:
    baseline, on = _finished(cell, BASELINE), _finished(cell, variant)
    return {
        "seeds/planned": cell.variants[variant].height,
        "seeds/baseline": len(baseline),
        "seeds/variant": len(on),
        "seeds/paired": len(baseline & on) if variant != BASELINE else 0,
    }


def _metric_columns(cell: Cell, variant: str, metric: str, confidence: float) -> dict[str, float | None]:
    baseline, on = cell.values(BASELINE, metric), cell.values(variant, metric)
    paired = paired_difference(baseline if variant != BASELINE else {}, on, confidence)
    tested = paired_columns(
        [on[seed] - baseline[seed] for seed in sorted(baseline.keys() & on.keys())]
        if variant != BASELINE
        else []
    )
    return {
        **_parts(f"{metric}/baseline", t_interval(list(baseline.values()), confidence)),
        **_parts(f"{metric}/variant", t_interval(list(on.values()), confidence)),
        **_parts(f"{metric}/difference", paired.difference),
        f"{metric}/difference/relative": paired.relative,
        **{f"{metric}/difference/{name}": value for name, value in tested.items()},
    }


def _parts(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {f"{name}/mean": estimate.mean, f"{name}/low": estimate.low, f"{name}/high": estimate.high}


def _baseline_columns(study: Study, cell: Cell) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    for metric in JUDGED:
        before = t_interval(list(cell.pooled(f"untrained/{metric}").values()), study.config.confidence)
        columns[f"untrained/{metric}"] = before.mean
        columns[f"raw_pixels/{metric}"] = study.raw_pixels(cell.dataset, metric)
    return columns


def _beats(row: dict[str, Any], side: str) -> bool | None:
    pairs = [
        (row[f"test/{m}/{side}/mean"], row[f"{kind}/{m}"])
        for m in JUDGED
        for kind in ("untrained", "raw_pixels")
    ]
    if any(value is None for pair in pairs for value in pair):
        return None
    return all(value > baseline for value, baseline in pairs)

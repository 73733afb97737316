"""Each variant against `baseline`: means, t-intervals and paired differences over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import polars as pl

from dmlcore.analysis import columns
from dmlcore.analysis.columns import MetricComparison
from dmlcore.analysis.convergence import count_converged, longer_evidence
from dmlcore.analysis.metric_labels import METRICS, one_line
from dmlcore.analysis.paired_tests import paired_tests
from dmlcore.analysis.protocol import protocol_line
from dmlcore.analysis.statistics import paired_difference
from dmlcore.analysis.study import BASELINE, CELL_COLUMNS, Cell, Study, cached_per_study
from dmlcore.analysis.trajectories import matched_difference

LEARNING_METRICS = ("map_at_r", "recall_at_1")
"""What must exceed both raw pixels and the untrained network for a configuration to count as having learned."""


@cached_per_study
def comparisons(study: Study) -> pl.DataFrame:
    """Compare each variant of a cell with its `baseline`, one row each; a cell of `baseline` alone has one row for it.

    Columns:
        `dataset`, `backbone`, `loss`, `variant`; `axis/PATH`: each config path that was swept besides these (as text).
        `seeds/planned`, `seeds/baseline`, `seeds/variant`, `seeds/paired`: trials of the variant in the plan, and seeds
        that finished with the baseline, with the variant, with both.
        For each metric M of METRICS, on the test split:
        `test/M/baseline/mean|low|high` and `test/M/variant/...`: mean and t-interval over its finished seeds;
        `test/M/difference/mean|low|high`: variant - baseline over paired seeds; `.../relative`: over mean(baseline);
        `.../p_value|p_holm|effect_size|seeds_needed`: paired t-test, Holm's correction over the study, Hedges' g,
        pairs of seeds that show such a difference with power 0.8 (`paired_tests`).
        `untrained/M`, `raw_pixels/M` for M = map_at_r, recall_at_1: the same before any training.
        `baseline/beats_untrained`, `variant/beats_untrained`: the means of both M exceed the untrained ones.
        `features/M`: of the pretrained backbone's features without a head, or null.
        `baseline/settings_tried`, `variant/settings_tried`: of a search, which chose the one compared; else null.
        `baseline/converged`, `variant/converged`: finished trials that were flat at their end (`has_converged`), or
        null. `longer_run/agrees`: whether a longer run of this data set and backbone confirms such ends; null without
        one. `matched/seeds`, `matched/map_at_r/mean`, `matched/opis_corrected/baseline/mean`,
        `matched/opis_corrected/difference/mean|low|high|relative`: at equal accuracy (`trajectories`).
        `status`: what is missing (failed, stopped, missing seeds; metrics without a value); null if nothing is.
        `protocol`. Means are null without a seed, intervals below 2 seeds.
    """
    pairs = compared_pairs(study)
    found = {metric: _compare(pairs, metric, study.config.confidence) for metric in METRICS}
    by_pair = (dict(zip(METRICS, group, strict=True)) for group in zip(*found.values(), strict=True))
    rows = [_row(study, *pair, compared) for pair, compared in zip(pairs, by_pair, strict=True)]
    # A column that is null in every row would have no type, and the CSV and parquet files of studies would differ
    texts = dict.fromkeys((*CELL_COLUMNS, "variant", "status", "protocol"), pl.String)
    sides = ("baseline", "variant")
    counts = dict.fromkeys((f"{s}/{n}" for s in sides for n in ("converged", "settings_tried")), pl.Int64)
    numbers = (
        dict.fromkeys((n for n in rows[0] if n.startswith(("features/", "matched/"))), pl.Float64)
        if rows
        else {}
    )
    overrides = {**texts, **counts, **numbers, "longer_run/agrees": pl.Boolean}
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=overrides)


def compared_pairs(study: Study) -> list[tuple[Cell, str]]:
    """Return the cell and variant of each row of `comparisons`: all but `baseline`, or `baseline` where it is alone."""
    return [
        (cell, variant)
        for cell in study.cells
        for variant in [name for name in cell.variants if name != BASELINE] or [BASELINE]
    ]


def _compare(pairs: Sequence[tuple[Cell, str]], metric: str, confidence: float) -> list[MetricComparison]:
    """Compare all pairs in one metric; they are the family of Holm's correction."""
    column, found = f"test/{metric}", []
    for cell, variant in pairs:
        baseline = cell.values(BASELINE, column) if variant != BASELINE else {}
        paired = paired_difference(baseline, cell.values(variant, column), confidence)
        before, after = (cell.estimate(name, column, confidence) for name in (BASELINE, variant))
        found.append((before, after, paired))
    # All comparisons of the study at once: Holm's correction needs their number
    tests = paired_tests([paired.values for _, _, paired in found])
    return [MetricComparison(*estimates, test) for estimates, test in zip(found, tests, strict=True)]


def _row(study: Study, cell: Cell, variant: str, found: dict[str, MetricComparison]) -> dict[str, Any]:
    sides = {"baseline": BASELINE, "variant": variant}
    row: dict[str, Any] = {**cell.names, "variant": variant, **cell.axis_columns}
    row |= _seed_counts(cell, variant)
    for metric, compared in found.items():
        for column in columns.COLUMNS:
            row |= column.numbers(metric, compared)
    for metric in LEARNING_METRICS:
        before = cell.pooled(f"untrained/{metric}").values()
        row[f"untrained/{metric}"] = fmean(before) if before else None
        row[f"raw_pixels/{metric}"] = study.raw_pixels(cell.dataset, metric)
        features = cell.pooled(f"features/{metric}").values()
        row[f"features/{metric}"] = fmean(features) if features else None
    row |= {f"{side}/beats_untrained": _beats_untrained(row, side) for side in sides}
    row |= {f"{side}/settings_tried": _settings_tried(cell, name) for side, name in sides.items()}
    row |= {f"{side}/converged": count_converged(cell, name) for side, name in sides.items()}
    row["longer_run/agrees"] = longer_evidence(study).get((cell.dataset, cell.backbone))
    row |= _matched_columns(cell, variant, study.config.confidence)
    return row | {"status": _status_note(cell, variant), "protocol": protocol_line(study, cell.dataset)}


def _settings_tried(cell: Cell, variant: str) -> int | None:
    """Return how many settings a search tried for the side; None without a search."""
    trials = cell.variants.get(variant)
    found = [] if trials is None or "tried" not in trials.columns else trials["tried"].drop_nulls().to_list()
    return max(found, default=None)


def _matched_columns(cell: Cell, variant: str, confidence: float) -> dict[str, float | None]:
    found = matched_difference(cell, variant, confidence)
    numbers = {"seeds": found.paired.difference.seeds, "map_at_r/mean": found.accuracy}
    numbers |= {"opis_corrected/baseline/mean": found.baseline}
    numbers |= found.paired.difference.columns("opis_corrected/difference")
    numbers |= {"opis_corrected/difference/relative": found.paired.relative}
    return {f"matched/{name}": value for name, value in numbers.items()}


def _seed_counts(cell: Cell, variant: str) -> dict[str, int]:
    before, after = (_finished_seeds(cell, name) for name in (BASELINE, variant))
    paired = len(before & after) if variant != BASELINE else 0
    counts = (cell.variants[variant].height, len(before), len(after), paired)
    return dict(
        zip(("seeds/planned", "seeds/baseline", "seeds/variant", "seeds/paired"), counts, strict=True)
    )


def _finished_seeds(cell: Cell, variant: str) -> set[int]:
    return set(cell.finished[variant]["seed"]) if variant in cell.variants else set()


def _beats_untrained(row: dict[str, Any], side: str) -> bool | None:
    kinds = [(kind, m) for m in LEARNING_METRICS for kind in ("untrained", "raw_pixels")]
    pairs = [(row[f"{kind}/{m}"], row[f"test/{m}/{side}/mean"]) for kind, m in kinds]
    if any(value is None for pair in pairs for value in pair):
        return None
    return all(mean > before for before, mean in pairs)


def _status_note(cell: Cell, variant: str) -> str | None:
    """Return what keeps the row of `variant` from resting on all planned seeds of both sides."""
    notes = [] if BASELINE in cell.variants else ["no variant baseline in the plan"]
    for side in dict.fromkeys((BASELINE, variant)):
        notes += [f"{side}: {text}" for text in (*_unfinished(cell, side), *_without_value(cell, side))]
    return "; ".join(notes) or None


def _unfinished(cell: Cell, variant: str) -> list[str]:
    if variant not in cell.variants or cell.finished[variant].height == cell.variants[variant].height:
        return []
    lost = cell.variants[variant].filter(pl.col("status") != "finished").select("seed", "status", "error")
    return [
        f"seed {seed} {status}" + (f" ({one_line(error, 80)})" if error and status == "failed" else "")
        for seed, status, error in lost.iter_rows()
    ]


def _without_value(cell: Cell, variant: str) -> list[str]:
    finished = len(_finished_seeds(cell, variant))
    counts = {metric: len(cell.values(variant, f"test/{metric}")) for metric in METRICS}
    return [f"test/{m} of {n} of {finished} seeds" for m, n in counts.items() if n < finished]

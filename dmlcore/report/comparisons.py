"""Each arm against `off`: means, t-intervals and paired differences over seeds."""

from __future__ import annotations

from typing import Any

import polars as pl

from dmlcore.report.convergence import converged
from dmlcore.report.names import METRICS, one_line
from dmlcore.report.paired_tests import add_holm, add_seeds_needed, paired_columns
from dmlcore.report.protocol import protocol_line
from dmlcore.report.statistics import Estimate, paired_difference, t_interval
from dmlcore.report.study import CELL, OFF, Cell, Study, once_a_study

JUDGED = ("map_at_r", "recall_at_1")
"""What a configuration must raise above raw pixels and its own untrained network, to count as having learned."""


@once_a_study
def comparisons(study: Study) -> pl.DataFrame:
    """One row a (cell, arm) against arm `off` of the same cell; a cell whose only arm is `off` has one row for it.

    Columns:
        `dataset`, `backbone`, `loss`, `arm`; `axis/PATH`: each config path that was swept besides these (as text).
        `seeds/planned`, `seeds/off`, `seeds/arm`, `seeds/paired`: trials of the arm in the plan, finished with off,
        finished with the arm, finished in both.
        For each metric M of METRICS, on the test split:
        `test/M/off/mean|low|high` and `test/M/arm/...`: mean and t-interval over all finished seeds of that side;
        `test/M/difference/mean|low|high`: arm - off over the paired seeds; `.../relative`: over mean(off);
        `.../p_value|p_holm|effect_size|seeds_needed`: paired t-test, Holm's correction over the study, Hedges' g,
        pairs of seeds at which such a difference is seen with power 0.8 (`paired_tests`).
        `untrained/M`, `raw_pixels/M` for M = map_at_r, recall_at_1: what there was before training.
        `off/beats_baselines`, `arm/beats_baselines`: the means of both M exceed both baselines.
        `off/converged`, `arm/converged`: finished trials no longer rising (`convergence.still_rising`), or null.
        `status`: what is missing (failed, stopped, missing seeds; metrics without a value); null if nothing is.
        `protocol`. Means are null without a seed, intervals below 2 seeds.
    """
    rows = [comparison(study, cell, arm) for cell in study.cells for arm in compared_arms(cell)]
    rows = add_seeds_needed(add_holm(rows, tuple(METRICS)), tuple(METRICS))
    texts = dict.fromkeys((*CELL, "arm", "status", "protocol"), pl.String)
    counts = dict.fromkeys(("off/converged", "arm/converged"), pl.Int64)
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={**texts, **counts})


def compared_arms(cell: Cell) -> list[str]:
    """The arms that get a row: all but `off`, or `off` where it is alone."""
    return [arm for arm in cell.arms if arm != OFF] or [OFF]


def comparison(study: Study, cell: Cell, arm: str) -> dict[str, Any]:
    """The row of `arm` in `cell`."""
    row: dict[str, Any] = {"dataset": cell.dataset, "backbone": cell.backbone, "loss": cell.loss, "arm": arm}
    row |= {f"axis/{path}": None if value is None else str(value) for path, value in cell.axes.items()}
    row |= _seed_counts(cell, arm)
    for metric in METRICS:
        row |= _metric_columns(cell, arm, f"test/{metric}", study.config.confidence)
    row |= _baseline_columns(study, cell)
    row |= {f"{side}/beats_baselines": _beats(row, side) for side in ("off", "arm")}
    row |= {f"{side}/converged": converged(cell, name) for side, name in (("off", OFF), ("arm", arm))}
    return row | {"status": status_note(cell, arm), "protocol": protocol_line(study, cell.dataset)}


def status_note(cell: Cell, arm: str) -> str | None:
    """What keeps the row of `arm` from resting on all planned seeds of both sides."""
    notes = [] if OFF in cell.arms else ["no arm off in the plan"]
    for side in dict.fromkeys((OFF, arm)):
        notes += [f"{side}: {text}" for text in _unfinished(cell, side)]
        notes += [f"{side}: {text}" for text in _valueless(cell, side)]
    return "; ".join(notes) or None


def _unfinished(cell: Cell, arm: str) -> list[str]:
    if arm not in cell.arms or cell.finished[arm].height == cell.arms[arm].height:
        return []
    lost = cell.arms[arm].filter(pl.col("status") != "finished").select("seed", "status", "error")
    return [
        f"seed {seed} {status}" + (f" ({one_line(error, 80)})" if error and status == "failed" else "")
        for seed, status, error in lost.iter_rows()
    ]


def _valueless(cell: Cell, arm: str) -> list[str]:
    finished = _finished(cell, arm)
    counts = {metric: len(cell.values(arm, f"test/{metric}")) for metric in METRICS}
    return [f"test/{m} of {n} of {len(finished)} seeds" for m, n in counts.items() if n < len(finished)]


def _finished(cell: Cell, arm: str) -> set[int]:
    return set(cell.finished[arm]["seed"]) if arm in cell.arms else set()


def _seed_counts(cell: Cell, arm: str) -> dict[str, int]:
    off, on = _finished(cell, OFF), _finished(cell, arm)
    return {
        "seeds/planned": cell.arms[arm].height,
        "seeds/off": len(off),
        "seeds/arm": len(on),
        "seeds/paired": len(off & on) if arm != OFF else 0,
    }


def _metric_columns(cell: Cell, arm: str, metric: str, confidence: float) -> dict[str, float | None]:
    off, on = cell.values(OFF, metric), cell.values(arm, metric)
    paired = paired_difference(off if arm != OFF else {}, on, confidence)
    tested = paired_columns(
        [on[seed] - off[seed] for seed in sorted(off.keys() & on.keys())] if arm != OFF else []
    )
    return {
        **_parts(f"{metric}/off", t_interval(list(off.values()), confidence)),
        **_parts(f"{metric}/arm", t_interval(list(on.values()), confidence)),
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

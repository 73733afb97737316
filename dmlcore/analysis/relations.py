"""The analysis `pareto`: accuracy against inconsistency over many losses: Pareto front, bend, rank correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from dmlcore.analysis.breakpoint import Breakpoint, RankCorrelation, find_breakpoint, rank_correlation
from dmlcore.analysis.convergence import count_converged
from dmlcore.analysis.protocol import protocol_line
from dmlcore.analysis.statistics import Estimate
from dmlcore.analysis.study import BASELINE, Cell, Study

OPIS_METRICS = ("test/opis_corrected", "test/opis")
"""The two inconsistencies that are shown side by side."""


@dataclass(frozen=True)
class Point:
    """One configuration: its metrics as mean and t-interval over the finished seeds."""

    cell: Cell
    variant: str
    metrics: Mapping[str, Estimate]

    @property
    def name(self) -> str:
        """The loss and its setting."""
        return ", ".join(part for part in (self.cell.loss, self.setting) if part)

    @property
    def setting(self) -> str:
        """The swept values, and the variant unless it is the baseline."""
        parts = [f"{path.rsplit('.', 1)[-1]} {value}" for path, value in self.cell.axes.items()]
        return ", ".join([*parts, *([] if self.variant == BASELINE else [self.variant])])

    def mean(self, metric: str) -> float:
        value = self.metrics[metric].mean
        return np.nan if value is None else value


@dataclass(frozen=True)
class Relation:
    """How one inconsistency depends on accuracy over the configurations of a (data set, backbone)."""

    group: tuple[str, str]
    metric: str
    points: Sequence[Point]
    front: Sequence[Point]
    """The points that no other beats in both, by accuracy."""
    overall: RankCorrelation
    breakpoint: Breakpoint | None
    below: RankCorrelation | None
    above: RankCorrelation | None
    confidence: float

    @property
    def has_breakpoint(self) -> bool:
        return self.breakpoint is not None and self.breakpoint.p <= 1 - self.confidence


def configuration_points(study: Study) -> dict[tuple[str, str], list[Point]]:
    """Return (data set, backbone) -> every configuration with a value of accuracy and of both inconsistencies."""
    names = (study.config.accuracy, *OPIS_METRICS)
    found: dict[tuple[str, str], list[Point]] = {}
    for cell in study.cells:
        for variant in cell.variants:
            metrics = {name: cell.estimate(variant, name, study.config.confidence) for name in names}
            if all(found.seeds for found in metrics.values()):
                found.setdefault((cell.dataset, cell.backbone), []).append(Point(cell, variant, metrics))
    return found


def relations(study: Study) -> list[Relation]:
    """Return one relation a (data set, backbone) and inconsistency."""
    return [
        _relation(group, metric, points, study.config.accuracy, study.config.confidence)
        for group, points in configuration_points(study).items()
        for metric in OPIS_METRICS
    ]


def _relation(
    group: tuple[str, str], metric: str, points: Sequence[Point], accuracy: str, confidence: float
) -> Relation:
    x, y = (np.array([p.mean(name) for p in points]) for name in (accuracy, metric))
    losses = np.array([p.cell.loss for p in points])

    def correlation(kept: NDArray[np.bool_]) -> RankCorrelation:
        return rank_correlation(x[kept], y[kept], losses[kept].tolist(), confidence)

    bend = find_breakpoint(x, y, losses.tolist())
    below = None if bend is None else correlation(x <= bend.at)
    above = None if bend is None else correlation(x > bend.at)
    front = sorted(compress(points, pareto_front(y, x)), key=lambda p: p.mean(accuracy))
    overall = correlation(np.ones(len(x), dtype=bool))
    return Relation(group, metric, points, front, overall, bend, below, above, confidence)


def pareto_table(study: Study, found: Sequence[Relation]) -> pl.DataFrame:
    """Return one row a configuration, best accuracy first.

    Columns: `dataset`, `backbone`, `loss`, `axis/PATH`, `variant`, `seeds`, `converged`; `M/mean|low|high` for the
    accuracy and both OPIS; `protocol`; `front/M` whether no other configuration beats it in accuracy and in M.
    """
    accuracy, rows = study.config.accuracy, []
    fronts = {(r.group, r.metric): {id(p) for p in r.front} for r in found}
    for group, points in {r.group: r.points for r in found}.items():
        for point in sorted(points, key=lambda p: -p.mean(accuracy)):
            on_front = {f"front/{m}": id(point) in fronts[group, m] for m in OPIS_METRICS}
            rows.append(_point_row(study, point) | on_front)
    return pl.DataFrame(rows, infer_schema_length=None, schema=None if rows else {"dataset": pl.String})


def bend_table(found: Sequence[Relation]) -> pl.DataFrame:
    """Return one row a (data set, backbone) and inconsistency.

    Columns: `dataset`, `backbone`, `metric`, `points`, `losses`, `front` (its size), `spearman`, `.../low`, `.../high`;
    of the best two segments `bend` (accuracy at which they meet), `bend/p`, `bend/found`, `SIDE/slope`, `SIDE/points`,
    `SIDE/spearman` and its interval, for SIDE below and above.
    """
    rows = [_bend_row(r) for r in found]
    return pl.DataFrame(rows, infer_schema_length=None, schema=None if rows else {"dataset": pl.String})


def _point_row(study: Study, point: Point) -> dict[str, Any]:
    cell = point.cell
    row: dict[str, Any] = {**cell.names, **cell.axis_columns, "variant": point.variant}
    row["seeds"] = point.metrics[study.config.accuracy].seeds
    row["converged"] = count_converged(cell, point.variant)
    for metric, found in point.metrics.items():
        row |= found.columns(metric)
    return row | {"protocol": protocol_line(study, cell.dataset)}


def _bend_row(r: Relation) -> dict[str, Any]:
    bend = r.breakpoint
    row: dict[str, Any] = {"dataset": r.group[0], "backbone": r.group[1], "metric": r.metric}
    row |= {"points": len(r.points), "losses": len({p.cell.loss for p in r.points}), "front": len(r.front)}
    row |= r.overall.columns("spearman")
    row |= {"bend": bend and bend.at, "bend/p": bend and bend.p, "bend/found": r.has_breakpoint}
    for i, (side, found) in enumerate((("below", r.below), ("above", r.above))):
        row |= {f"{side}/slope": bend and bend.slopes[i], f"{side}/points": found and found.points}
        row |= (found or RankCorrelation(None, None, None, 0)).columns(f"{side}/spearman")
    return row


def pareto_front(cost: ArrayLike, gain: ArrayLike) -> NDArray[np.bool_]:
    """Return which points no other point dominates; O(n log n).

    A point dominates another if its cost is not higher, its gain not lower, and one of the two strictly better. Equal
    points do not dominate each other, so both stay.

    Args:
        cost: [n], lower is better.
        gain: [n], higher is better.

    Returns:
        [n] bool.

    Raises:
        ValueError: a value is not finite.
    """
    c, g = np.asarray(cost, dtype=float), np.asarray(gain, dtype=float)
    if not (np.isfinite(c).all() and np.isfinite(g).all()):
        raise ValueError("cost and gain must be finite; leave out points without a value")
    order = np.lexsort((-g, c))  # by rising cost, of equal costs the highest gain first
    front = np.zeros(len(c), dtype=bool)
    best, best_cost = -np.inf, np.nan
    for i in order:
        if g[i] > best:
            best, best_cost = g[i], c[i]
            front[i] = True
        else:
            front[i] = g[i] == best and c[i] == best_cost
    return front

"""Part `pareto`: accuracy against inconsistency over many losses: the front, the bend, the rank correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from dmlcore.analysis.breakpoint import Breakpoint, RankCorrelation, find_breakpoint, rank_correlation
from dmlcore.analysis.convergence import count_converged
from dmlcore.analysis.protocol import protocol_line
from dmlcore.analysis.statistics import Estimate, t_interval
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
        """The swept values and, if it is on, the variant."""
        parts = [f"{path.rsplit('.', 1)[-1]} {value}" for path, value in self.cell.axes.items()]
        return ", ".join([*parts, *([] if self.variant == BASELINE else [self.variant])])

    def mean(self, metric: str) -> float:
        value = self.metrics[metric].mean
        return np.nan if value is None else value


@dataclass(frozen=True)
class Relation:
    """How one inconsistency goes with accuracy over the points of a (data set, backbone)."""

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
    """(data set, backbone) -> every configuration with a value of accuracy and of both inconsistencies."""
    found: dict[tuple[str, str], list[Point]] = {}
    for cell in study.cells:
        for variant in cell.variants:
            names = (study.config.accuracy, *OPIS_METRICS)
            values = {name: list(cell.values(variant, name).values()) for name in names}
            if all(values.values()):
                metrics = {name: t_interval(values[name], study.config.confidence) for name in names}
                found.setdefault((cell.dataset, cell.backbone), []).append(Point(cell, variant, metrics))
    return found


def relations(study: Study) -> list[Relation]:
    """One a (data set, backbone) and inconsistency."""
    return [
        relation(place, metric, mine, study.config.accuracy, study.config.confidence)
        for place, mine in configuration_points(study).items()
        for metric in OPIS_METRICS
    ]


def relation(
    group: tuple[str, str], metric: str, mine: Sequence[Point], accuracy: str, confidence: float
) -> Relation:
    """The front, the bend and the rank correlations of `metric` over accuracy."""
    x, y = np.array([p.mean(accuracy) for p in mine]), np.array([p.mean(metric) for p in mine])
    groups = [p.cell.loss for p in mine]
    bend = find_breakpoint(x, y, groups)
    sides: list[RankCorrelation | None] = [None, None]
    if bend is not None:
        masks = (x <= bend.at, x > bend.at)
        sides = [_part(x, y, groups, mask.tolist(), confidence) for mask in masks]
    front = sorted(
        (p for p, on in zip(mine, pareto_front(y, x), strict=True) if on), key=lambda p: p.mean(accuracy)
    )
    overall = rank_correlation(x, y, groups, confidence)
    return Relation(group, metric, mine, front, overall, bend, sides[0], sides[1], confidence)


def pareto_table(study: Study, found: Sequence[Relation]) -> pl.DataFrame:
    """One row a configuration, best accuracy first.

    Columns: `dataset`, `backbone`, `loss`, `axis/PATH`, `variant`, `seeds`, `converged`; `M/mean|low|high` for the accuracy
    and both OPIS; `front/M` whether no other configuration beats it in accuracy and in M; `protocol`.
    """
    accuracy, rows = study.config.accuracy, []
    fronts = {(r.group, r.metric): {id(p) for p in r.front} for r in found}
    for mine in {r.group: r.points for r in found}.values():
        for point in sorted(mine, key=lambda p: -p.mean(accuracy)):
            rows.append(
                _row(study, point)
                | {f"front/{m}": id(point) in fronts[_place(point), m] for m in OPIS_METRICS}
            )
    return pl.DataFrame(rows, infer_schema_length=None, schema=None if rows else {"dataset": pl.String})


def bend_table(found: Sequence[Relation]) -> pl.DataFrame:
    """One row a (data set, backbone) and inconsistency.

    Columns: `dataset`, `backbone`, `metric`, `points`, `losses`, `front` (its size), `spearman`, `.../low`, `.../high`;
    of the best two segments `bend` (accuracy at which they meet), `bend/p`, `bend/found`, `SIDE/slope`, `SIDE/points`,
    `SIDE/spearman` and its interval, for SIDE below and above.
    """
    rows = [_bend_row(r) for r in found]
    return pl.DataFrame(rows, infer_schema_length=None, schema=None if rows else {"dataset": pl.String})


def _part(x: Any, y: Any, groups: Sequence[str], mask: Sequence[bool], confidence: float) -> RankCorrelation:
    kept = [group for group, inside in zip(groups, mask, strict=True) if inside]
    return rank_correlation(x[mask], y[mask], kept, confidence)


def _place(point: Point) -> tuple[str, str]:
    return point.cell.dataset, point.cell.backbone


def _row(study: Study, point: Point) -> dict[str, Any]:
    cell = point.cell
    row: dict[str, Any] = {"dataset": cell.dataset, "backbone": cell.backbone, "loss": cell.loss}
    row |= {f"axis/{path}": None if value is None else str(value) for path, value in cell.axes.items()}
    row |= {"variant": point.variant, "seeds": point.metrics[study.config.accuracy].seeds}
    row["converged"] = count_converged(cell, point.variant)
    for metric, found in point.metrics.items():
        row |= {f"{metric}/mean": found.mean, f"{metric}/low": found.low, f"{metric}/high": found.high}
    return row | {"protocol": protocol_line(study, cell.dataset)}


def _bend_row(r: Relation) -> dict[str, Any]:
    losses = len({p.cell.loss for p in r.points})
    row: dict[str, Any] = {"dataset": r.group[0], "backbone": r.group[1], "metric": r.metric}
    row |= {
        "points": len(r.points),
        "losses": losses,
        "front": len(r.front),
        **_correlation("spearman", r.overall),
    }
    row |= {
        "bend": r.breakpoint and r.breakpoint.at,
        "bend/p": r.breakpoint and r.breakpoint.p,
        "bend/found": r.has_breakpoint,
    }
    for i, (side, found) in enumerate((("below", r.below), ("above", r.above))):
        row |= {
            f"{side}/slope": r.breakpoint and r.breakpoint.slopes[i],
            f"{side}/points": found and found.points,
        }
        row |= _correlation(f"{side}/spearman", found)
    return row


def _correlation(name: str, found: RankCorrelation | None) -> dict[str, float | None]:
    if found is None:
        return dict.fromkeys((name, f"{name}/low", f"{name}/high"))
    return {name: found.rho, f"{name}/low": found.low, f"{name}/high": found.high}


def pareto_front(cost: ArrayLike, gain: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point dominates; O(n log n).

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
    order = np.lexsort((-g, c))
    front = np.zeros(len(c), dtype=bool)
    best, best_cost = -np.inf, np.nan
    for i in order:
        if g[i] > best:
            best, best_cost = g[i], c[i]
            front[i] = True
        else:
            front[i] = g[i] == best and c[i] == best_cost
    return front

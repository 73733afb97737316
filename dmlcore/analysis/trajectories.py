"""The path of a trial through accuracy x inconsistency while it trains, and what a variant did at equal accuracy.

A regulariser that only makes a network learn faster changes OPIS after any fixed number of epochs: OPIS falls while a
network learns. Where both networks are equally accurate, such a difference is gone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from dmlcore.analysis.convergence import CURVE_COLUMN
from dmlcore.analysis.statistics import PairedDifference, paired_difference
from dmlcore.analysis.study import BASELINE, Cell

Floats = NDArray[np.float64]
OPIS_CURVE_COLUMN = "curve/validation/opis_corrected"
WINDOW = 0.9
"""Accuracies are compared from this share of the highest that both trials reached up to it."""
GRID = 21
"""Accuracies of the window at which OPIS is read off."""
EQUAL_ACCURACY = (
    "At equal accuracy: corrected OPIS on validation where both trials of a seed have the same validation MAP@R, "
    f"mean over {100 * WINDOW:g} to 100 % of the highest MAP@R that both reached."
)


class Trajectory(NamedTuple):
    """OPIS as a function of accuracy along the training of one trial."""

    accuracy: Floats
    """[n], rising: validation MAP@R."""
    opis: Floats
    """[n], corrected OPIS on validation."""

    def at(self, accuracy: Floats) -> Floats:
        """Read OPIS off between the points, linearly; beyond the ends it is NaN."""
        return np.interp(accuracy, self.accuracy, self.opis, left=math.nan, right=math.nan)


def trajectory(accuracy: Sequence[float | None], opis: Sequence[float | None]) -> Trajectory | None:
    """Order the epochs of a trial by accuracy.

    Accuracy rises with noise, so that it has no inverse. Its isotonic regression over the epochs has one: neighbouring
    epochs that fall are pooled into their mean, and OPIS is averaged over the same epochs. No shape of OPIS is assumed.

    Args:
        accuracy: [E + 1], by epoch.
        opis: [E + 1].

    Returns:
        None where fewer than two epochs have both values.

    Reference: Barlow et al., Statistical Inference under Order Restrictions, 1972 (pool-adjacent-violators).
    """
    pairs = [
        (float(a), float(o))
        for a, o in zip(accuracy, opis, strict=True)
        if a is not None and o is not None and math.isfinite(a) and math.isfinite(o)
    ]
    if len(pairs) < 2:
        return None
    values = np.array(pairs, dtype=np.float64)
    fitted = isotonic_regression(values[:, 0])
    starts = fitted.blocks[:-1]
    counts = np.diff(fitted.blocks)
    return Trajectory(fitted.x[starts], np.add.reduceat(values[:, 1], starts) / counts)


def opis_at_equal_accuracy(baseline: Trajectory, variant: Trajectory) -> tuple[float, float, float] | None:
    """Compare two trials where they are equally accurate.

    Returns:
        The highest accuracy that both reached; mean OPIS of each over WINDOW to 1 of it. None where the lower end of
        the window is below the first epoch of one.
    """
    top = float(min(baseline.accuracy[-1], variant.accuracy[-1]))
    window = np.linspace(WINDOW * top, top, GRID)
    before, after = float(np.mean(baseline.at(window))), float(np.mean(variant.at(window)))
    return (top, before, after) if math.isfinite(before) and math.isfinite(after) else None


def trajectories(cell: Cell, variant: str) -> dict[int, Trajectory]:
    """Return seed -> path of the finished trials of a variant whose curves are known."""
    done = cell.finished.get(variant)
    if done is None or not {CURVE_COLUMN, OPIS_CURVE_COLUMN} <= set(done.columns):
        return {}
    known = done.filter(pl.col(CURVE_COLUMN).is_not_null() & pl.col(OPIS_CURVE_COLUMN).is_not_null())
    rows = known.select("seed", CURVE_COLUMN, OPIS_CURVE_COLUMN).iter_rows()
    found = {seed: trajectory(accuracy, opis) for seed, accuracy, opis in rows}
    return {seed: path for seed, path in found.items() if path is not None}


class Path(NamedTuple):
    """The trajectories of one configuration over its seeds."""

    accuracy: Floats
    """[g], rising."""
    mean: Floats
    """[g], OPIS at that accuracy, mean over the seeds that have been there."""
    low: Floats
    high: Floats
    end_accuracy: Floats
    """[seeds], of the last epochs (of the last pool of epochs)."""
    end_opis: Floats


def mean_path(found: Sequence[Trajectory], points: int = 60) -> Path | None:
    """Average the trajectories of a configuration at equal accuracy; None without one."""
    if not found:
        return None
    first, last = (float(pick([t.accuracy[end] for t in found])) for pick, end in ((min, 0), (max, -1)))
    grid = np.linspace(first, last, points)
    values = np.array([path.at(grid) for path in found])
    known = ~np.isnan(values).all(axis=0)
    grid, values = grid[known], values[:, known]
    ends = np.array([(path.accuracy[-1], path.opis[-1]) for path in found])
    mean, low, high = (reduce(values, axis=0) for reduce in (np.nanmean, np.nanmin, np.nanmax))
    return Path(grid, mean, low, high, ends[:, 0], ends[:, 1])


class MatchedDifference(NamedTuple):
    """Corrected OPIS of a variant less that of its baseline, at equal accuracy."""

    accuracy: float | None
    """Mean over the seeds of the highest validation MAP@R that both trials reached."""
    baseline: float | None
    """Mean of the baseline's OPIS."""
    paired: PairedDifference


def matched_difference(cell: Cell, variant: str, confidence: float) -> MatchedDifference:
    """Pair the trials of each seed at equal accuracy; without a value where no seed has both."""
    before, after = trajectories(cell, BASELINE), trajectories(cell, variant)
    seeds = sorted(before.keys() & after.keys()) if variant != BASELINE else []
    found = {seed: opis_at_equal_accuracy(before[seed], after[seed]) for seed in seeds}
    known = {seed: values for seed, values in found.items() if values is not None}
    paired = paired_difference(
        {seed: values[1] for seed, values in known.items()},
        {seed: values[2] for seed, values in known.items()},
        confidence,
    )
    if not known:
        return MatchedDifference(None, None, paired)
    top, base, _ = np.mean(np.array(list(known.values())), axis=0)
    return MatchedDifference(float(top), float(base), paired)

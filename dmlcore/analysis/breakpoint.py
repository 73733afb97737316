"""Two-segment fits and rank correlations: does OPIS fall with accuracy up to a bend and rise past it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


MIN_SEGMENT_POINTS = 5
"""Points that each of the two segments must have."""
MIN_GROUPS = 4
"""Groups below which a rank correlation gets no interval: too few to resample."""
RESAMPLES = 999


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho with its bootstrap interval; None where the points are too few or all alike."""

    rho: float | None
    low: float | None
    high: float | None
    points: int

    def columns(self, name: str) -> dict[str, float | None]:
        """Return rho and its interval as columns of a table."""
        return {name: self.rho, f"{name}/low": self.low, f"{name}/high": self.high}


@dataclass(frozen=True)
class Breakpoint:
    """The best two-segment line of y on x, and the test of two segments against one line."""

    at: float
    """The x where the segments meet."""
    slopes: tuple[float, float]
    p: float
    """Of the test in `find_breakpoint`; small: one line does not fit."""
    fitted: Floats
    """[n] y of the two segments at the points."""


def find_breakpoint(
    x: Floats, y: Floats, groups: Sequence[str], min_points: int = MIN_SEGMENT_POINTS, seed: int = 0
) -> Breakpoint | None:
    """Fit a line with one bend by least squares and test it against a straight one.

    Formula: y = a + b x + c max(0, x - k), where k is the midpoint between two neighbouring x that leaves the smallest
    sum of squares. Test: F = share of the straight line's sum of squares that the bend removes, the largest over all k,
    against its distribution when the residuals of the straight line change their signs at random, all of a group
    together (wild cluster bootstrap): settings of one loss are not independent, and k was searched for.

    Args:
        x: [n].
        y: [n].
        groups: [n], what belongs together (the loss).
        min_points: on each side of k.
        seed: of the signs.

    Returns:
        None where no k has `min_points` on each side.

    Reference: Cameron, Gelbach and Miller 2008, "Bootstrap-Based Improvements for Inference with Clustered Errors".
    """
    breaks = _candidate_breaks(x, min_points)
    if not len(breaks):
        return None
    # Orthonormal bases turn each least-squares fit of the bootstrap (999 resamples x all k) into a matrix product
    line = _basis(x, None)
    straight = line @ (line.T @ y)
    bases = np.stack([_basis(x, k) for k in breaks])
    gains = _gains(line, bases, y[None])[0]
    best = int(np.argmax(gains))
    signs = _group_signs(groups, np.random.default_rng(seed))
    null = _gains(line, bases, straight + signs * (y - straight)).max(axis=1)
    # 1e-12: a resample that flips no sign equals the observed gain up to rounding, and must count as reaching it
    p = float((1 + np.sum(null >= gains[best] * (1 - 1e-12))) / (1 + RESAMPLES))
    k = float(breaks[best])
    b, c = np.linalg.lstsq(_design(x, k), y, rcond=None)[0][1:]
    return Breakpoint(k, (float(b), float(b + c)), p, bases[best] @ (bases[best].T @ y))


def rank_correlation(
    x: Floats, y: Floats, groups: Sequence[str], confidence: float, seed: int = 0
) -> RankCorrelation:
    """Return Spearman's rho of x and y, its interval from resamples of groups, as points of one are not independent.

    Args:
        x: [n].
        y: [n].
        groups: [n].
        confidence: level of the percentile interval.
        seed: of the resamples.

    Returns:
        No rho below 3 points or with constant x or y, no interval below MIN_GROUPS groups.
    """
    names = sorted(set(groups))
    rho = _spearman(x, y)
    if rho is None or len(names) < MIN_GROUPS:
        return RankCorrelation(rho, None, None, len(x))
    members = [np.flatnonzero(np.array(groups) == name) for name in names]
    draws = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    picked = (np.concatenate([members[i] for i in draw]) for draw in draws)
    values = [value for rows in picked if (value := _spearman(x[rows], y[rows])) is not None]
    low, high = np.quantile(values, ((1 - confidence) / 2, (1 + confidence) / 2))
    return RankCorrelation(rho, float(low), float(high), len(x))


def _spearman(x: Floats, y: Floats) -> float | None:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    # `stats.spearmanr` gives the same and takes over twice as long: a second for each bootstrap of 999 resamples
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def _candidate_breaks(x: Floats, min_points: int) -> Floats:
    """Return the midpoints between neighbouring distinct x with at least `min_points` >= 1 on each side."""
    ordered = np.sort(x)
    at = np.arange(min_points, len(x) - min_points + 1)
    rising = at[ordered[at] > ordered[at - 1]]
    return (ordered[rising] + ordered[rising - 1]) / 2


def _design(x: Floats, k: float | None) -> Floats:
    columns = [np.ones_like(x), x]
    return np.stack(columns if k is None else [*columns, np.maximum(0.0, x - k)], axis=1)


def _basis(x: Floats, k: float | None) -> Floats:
    """Return an orthonormal basis of what the line (k None) or the two segments can fit: [n, 2 or 3]."""
    return np.asarray(np.linalg.qr(_design(x, k))[0])


def _gains(line: Floats, bases: Floats, y: Floats) -> Floats:
    """Return the share of the straight line's residual squares that each break removes: y [r, n] -> [r, breaks]."""
    by_line = np.sum((y @ line) ** 2, axis=1)
    residual = np.sum(y**2, axis=1) - by_line
    by_segments = np.sum(np.einsum("rn,knj->rkj", y, bases) ** 2, axis=2)
    # 1e-300: points on a straight line leave no residual
    return np.asarray((by_segments - by_line[:, None]) / np.maximum(residual, 1e-300)[:, None])


def _group_signs(groups: Sequence[str], random: np.random.Generator) -> Floats:
    """Draw [RESAMPLES, n] of +-1, equal within a group."""
    names, which = np.unique(np.array(groups), return_inverse=True)
    return np.asarray(random.choice((-1.0, 1.0), size=(RESAMPLES, len(names)))[:, which])

"""Whether OPIS falls with accuracy up to a bend and rises past it: two-segment fits and rank correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


MIN_SEGMENT_POINTS = 5
"""Points that each of the two segments must have."""


RESAMPLES = 999


MIN_GROUPS = 4
"""Groups below which a rank correlation gets no interval: too few to resample."""


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho with its bootstrap interval; None where the points are too few or all alike."""

    rho: float | None
    low: float | None
    high: float | None
    points: int


@dataclass(frozen=True)
class Breakpoint:
    """The best two-segment line of y on x, and how sure it is that two segments are better than one line."""

    at: float
    """The x where the segments meet."""
    slopes: tuple[float, float]
    p: float
    """Of the test in `find_breakpoint`; small: one line does not do."""
    fitted: Floats
    """[n] y of the two segments at the points."""


def find_breakpoint(
    x: Floats, y: Floats, groups: Sequence[str], least: int = MIN_SEGMENT_POINTS, seed: int = 0
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
        least: points on each side of k.
        seed: of the signs.

    Returns:
        None where fewer than 2 * least points, or no k has `least` distinct sides.

    Reference: Cameron, Gelbach and Miller 2008, "Bootstrap-Based Improvements for Inference with Clustered Errors".
    """
    breaks = _breaks(x, least)
    if len(x) < 2 * least or not len(breaks):
        return None
    line = _basis(x, None)
    straight = line @ (line.T @ y)
    bases = np.stack([_basis(x, k) for k in breaks])
    gains = _gains(line, bases, y[None])[0]
    best = int(np.argmax(gains))
    signs = _signs(groups, np.random.default_rng(seed))
    null = _gains(line, bases, straight + signs * (y - straight)).max(axis=1)
    p = float((1 + np.sum(null >= gains[best] * (1 - 1e-12))) / (1 + RESAMPLES))
    k = float(breaks[best])
    b, c = np.linalg.lstsq(_design(x, k), y, rcond=None)[0][1:]
    return Breakpoint(k, (float(b), float(b + c)), p, bases[best] @ (bases[best].T @ y))


def rank_correlation(
    x: Floats, y: Floats, groups: Sequence[str], confidence: float, seed: int = 0
) -> RankCorrelation:
    """Spearman's rho of x and y; its interval from resamples of whole groups, as points of one are not independent.

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
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def _breaks(x: Floats, least: int) -> Floats:
    """Midpoints between neighbouring distinct x with at least `least` points on each side."""
    ordered = np.sort(x)
    at = np.arange(least, len(x) - least + 1)
    at = at[(at > 0) & (at < len(x))]
    rising = at[ordered[at] > ordered[at - 1]]
    return (ordered[rising] + ordered[rising - 1]) / 2


def _design(x: Floats, k: float | None) -> Floats:
    columns = [np.ones_like(x), x]
    return np.stack(columns if k is None else [*columns, np.maximum(0.0, x - k)], axis=1)


def _basis(x: Floats, k: float | None) -> Floats:
    """Orthonormal basis of what the line (k None) or the two segments can fit: [n, 2 or 3]."""
    return np.asarray(np.linalg.qr(_design(x, k))[0])


def _gains(line: Floats, bases: Floats, y: Floats) -> Floats:
    """Share of the straight line's squares that each break removes: y [r, n] -> [r, breaks]."""
    left = np.sum(y**2, axis=1) - np.sum((y @ line) ** 2, axis=1)
    explained = np.sum(np.einsum("rn,knj->rkj", y, bases) ** 2, axis=2)
    gains = explained - np.sum((y @ line) ** 2, axis=1)[:, None]
    return np.asarray(gains / np.maximum(left, 1e-300)[:, None])


def _signs(groups: Sequence[str], random: np.random.Generator) -> Floats:
    """[RESAMPLES, n] of +-1, alike within a group."""
    names, which = np.unique(np.array(groups), return_inverse=True)
    return np.asarray(random.choice((-1.0, 1.0), size=(RESAMPLES, len(names)))[:, which])

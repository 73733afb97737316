"""Embeddings whose FAR and FRR are known: on a circle by integrals, on a sphere with hubs by independent pairs."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, stats

ARC = 3.0
SPREADS = (0.15, 0.45)
WIDTH, NOISE = 16, 0.5
MEAN = np.eye(WIDTH)[0]
INDEPENDENT_PAIRS = 4_000_000
"""A FAR of 1 % is known from them to 0.5 % of itself (one standard error), a tenth of the intervals' half-width."""


def draw(
    classes: int, images: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Centres uniform on an arc of 3 rad, images normal about them, their spread 0.15 or 0.45 rad by class.

    Returns: embeddings [N, 2], labels [N].
    """
    centre, spread = rng.uniform(0.0, ARC, classes), rng.choice(SPREADS, classes)
    labels = np.repeat(np.arange(classes), images)
    angle = centre[labels] + spread[labels] * rng.standard_normal(len(labels))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1), labels


def true_frr(distance: float) -> float:
    """P(|N(0, 2 s^2)| > angle), mean over the two spreads s; distance = 2 sin(angle / 2)."""
    angle = 2.0 * math.asin(distance / 2.0)
    return float(np.mean([2.0 * stats.norm.sf(angle / (s * math.sqrt(2.0))) for s in SPREADS]))


def true_far(distance: float) -> float:
    """P(|difference of two centres + N(0, s^2 + r^2)| <= angle), mean over the spreads s, r of the two classes."""
    angle = 2.0 * math.asin(distance / 2.0)

    def share(x: float, sd: float) -> float:
        inside = stats.norm.cdf((angle - x) / sd) - stats.norm.cdf((-angle - x) / sd)
        return (ARC - abs(x)) / ARC**2 * inside

    parts = [
        integrate.quad(share, -ARC, ARC, args=(math.hypot(s, r),), points=[-angle, 0.0, angle], limit=200)[0]
        for s in SPREADS
        for r in SPREADS
    ]
    return float(np.mean(parts))


def draw_sphere(
    classes: int, images: int, rng: np.random.Generator, hubs: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Centres scattered about a common mean; a share `hubs` of them is near the mean, so near to all others.

    Returns: embeddings [N, 16], labels [N].
    """
    labels = np.repeat(np.arange(classes), images)
    return _images(_centres(classes, rng, hubs)[labels], rng), labels


def true_sphere_far(distance: float, hubs: float) -> float:
    """The share of independent pairs, four new draws each, that are accepted."""
    return share_within(sphere_distances(hubs, same=False), distance)


@cache
def sphere_distances(hubs: float, *, same: bool) -> NDArray[np.float64]:
    """Distances of independent pairs of one class or of two, ascending."""
    rng, at_once, parts = np.random.default_rng(0), 500_000, []
    for _ in range(INDEPENDENT_PAIRS // at_once):
        centres = _centres(at_once, rng, hubs)
        one = _images(centres, rng)
        other = _images(centres if same else _centres(at_once, rng, hubs), rng)
        parts.append(np.linalg.norm(one - other, axis=1))
    return np.sort(np.concatenate(parts))


def share_within(distances: NDArray[np.float64], distance: float) -> float:
    """The share of ascending distances that are at most `distance`."""
    return float(np.searchsorted(distances, distance, side="right")) / len(distances)


def _centres(count: int, rng: np.random.Generator, hubs: float) -> NDArray[np.float64]:
    away = _unit(rng.standard_normal((count, WIDTH)))
    reach = np.where(rng.random(count) < hubs, 0.3, 1.5)
    return _unit(MEAN + reach[:, None] * away)


def _images(centres: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return _unit(centres + NOISE / math.sqrt(WIDTH) * rng.standard_normal(centres.shape))


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit

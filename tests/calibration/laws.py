"""Embeddings on a circle whose FAR and FRR at every distance are known."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, stats

ARC = 3.0
SPREADS = (0.15, 0.45)


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

"""Naive float64 numbers of a calibration card, pair by pair, written from their definitions."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from tests.reference.metrics import distances

Ints = NDArray[np.int64]
Part = tuple[Ints, frozenset[int]]
"""(errors, pairs), and the classes, or images, that they are of."""
SLACK = 1e-6
"""Between a distance of ours, from a float32 similarity, and the float64 one, at distances of 0.1 and more."""


def recount(x: np.ndarray, y: np.ndarray, threshold: float) -> tuple[Ints, Ints]:
    """Count accepted and all negatives, and rejected and all positives, by class: two [C, 2]."""
    d = distances(x)
    far, frr = np.zeros((y.max() + 1, 2), int), np.zeros((y.max() + 1, 2), int)
    for i in range(len(y)):
        for j in range(i + 1, len(y)):
            if y[i] == y[j]:
                frr[y[i]] += (d[i, j] > threshold, 1)
            else:
                far[y[i]] += (d[i, j] <= threshold, 1)
                far[y[j]] += (d[i, j] <= threshold, 1)
    return far, frr


def recount_by_group(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray, threshold: float, query: np.ndarray | None = None
) -> dict[tuple[int, str, str], tuple[int, int]]:
    """Count errors and pairs by (group, part, kind)."""
    d, found = distances(x), {}
    for i in range(len(y)):
        for j in range(len(y)):
            if (i >= j) if query is None else not (query[i] and not query[j]):
                continue
            same, near = y[i] == y[j], d[i, j] <= threshold
            ends = {groups[i]} if query is not None else {groups[i], groups[j]}
            for group in ends:
                part = "within" if groups[i] == groups[j] else "across"
                count = found.setdefault((group, part, "frr" if same else "far"), np.zeros(2, int))
                count += (near != same, 1)
    return {key: tuple(value.tolist()) for key, value in found.items()}


def parts_by_class(x: np.ndarray, y: np.ndarray, threshold: float, kind: str) -> list[Part]:
    """Count the FRR of each class, or the FAR of each pair of classes."""
    d, found = distances(x), {}
    for i in range(len(y)):
        for j in range(i + 1, len(y)):
            if (y[i] == y[j]) == (kind == "frr"):
                ends = frozenset({int(y[i]), int(y[j])})
                wrong = (d[i, j] <= threshold) == (kind == "far")
                found.setdefault(ends, np.zeros(2, int))
                found[ends] += (wrong, 1)
    return [(count, ends) for ends, count in found.items()]


def standard_error(parts: Sequence[Part], classes: int) -> float:
    """Sum the products of the residuals of all pairs of parts that share a class; not below those of a part itself.

    Reference: Aronow, Samii, Assenova 2015, equation 5; of parts that share none, Cochran 1977, section 9A.
    """
    errors, pairs = sum(count for count, _ in parts)
    left = [(count[0] - errors / pairs * count[1], ends) for count, ends in parts]
    shared = sum(a * b for a, p in left for b, q in left if p & q)
    variance = max(shared, sum(a * a for a, _ in left)) / pairs**2
    return math.sqrt(variance * classes / (classes - 1))


def interval(parts: Sequence[Part], classes: int) -> tuple[float, float]:
    """The 95 % t-interval on the log-odds."""
    errors, pairs = sum(count for count, _ in parts)
    rate = errors / pairs
    half = stats.t.ppf(0.975, classes - 1) * standard_error(parts, classes) / (rate * (1 - rate))
    return special.expit(special.logit(rate) - half), special.expit(special.logit(rate) + half)


def class_interval(rate: float, draws: int, level: float) -> tuple[float, float]:
    """Where n kl(rate, bound) = log(2 / level) on either side, by a root search. Reference: Hoeffding 1963."""

    def excess(bound: float) -> float:
        terms = [(rate, bound), (1 - rate, 1 - bound)]
        return draws * sum(p * math.log(p / q) for p, q in terms if p > 0) - math.log(2 / level)

    def root(end: float) -> float:
        inside, outside = (rate, abs(end - 1e-15))
        return (
            end if rate == end or excess(outside) < 0 else optimize.brentq(excess, inside or 1e-300, outside)
        )

    return root(0.0), root(1.0)


def upper_bound(parts: Sequence[Part], classes: int, confidence: float) -> float:
    """The upper bound of the FAR of classes not seen; parts are pairs of classes."""
    share = np.zeros((classes, 2))
    for count, ends in parts:
        share[list(ends)] += count
    errors, pairs = sum(count for count, _ in parts)
    far, worst = errors / pairs, (share[:, 0] / share[:, 1]).max()
    more = math.log(1 / (1 - confidence))  # classes as bad as the worst; each in C - 1 of C (C - 1) / 2 pairs
    centre = (far * classes * (classes - 1) / 2 + more * worst * classes) / (
        classes * (classes - 1) / 2 + more * classes
    )
    half = stats.t.ppf(confidence, classes - 1) * standard_error(parts, classes) / (far * (1 - far))
    return special.expit(special.logit(centre) + half)


def score(target: object, far: float, frr: float, totals: tuple[int, int]) -> float:
    """F1, minus the cost, or the accepted share of the positives where the precision is kept."""
    if target.kind == "f1":
        true, false = (1 - frr) * totals[0], far * totals[1]
        return 2 * true / (true + false + totals[0])
    if target.kind == "cost":
        return -(
            target.prior * frr * target.cost_false_reject
            + (1 - target.prior) * far * target.cost_false_accept
        )
    return 1 - frr if precision(target.prior, far, frr) >= target.rate else -np.inf


def precision(prior: float, far: float, frr: float) -> float:
    matches = prior * (1 - frr)
    return matches / (matches + (1 - prior) * far) if matches + far else 0.0

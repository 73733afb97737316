"""Naive float64 metrics, pair by pair, written from their definitions: the oracle of dmlcore.metrics."""

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def distances(embeddings: NDArray[np.floating]) -> Floats:
    """L2 distances of the normalised rows, [N, N]; exactly 0 of identical ones."""
    x = np.asarray(embeddings, dtype=np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.array(
        [[0.0 if (a == b).all() else math.sqrt(max(0.0, 2 - 2 * float(a @ b))) for b in x] for a in x]
    )


def all_pairs(
    labels: NDArray[np.integer],
    is_query: NDArray[np.bool_] | None = None,
    groups: NDArray[np.generic] | None = None,
) -> list[tuple[int, int]]:
    """Unordered pairs, or (query, gallery) pairs; of one class and one group there is none."""
    n = len(labels)
    if is_query is None:
        pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    else:
        pairs = [(i, j) for i in range(n) for j in range(n) if is_query[i] and not is_query[j]]
    return [(i, j) for i, j in pairs if is_pair(i, j, labels, groups)]


def is_pair(i: int, j: int, labels: NDArray[np.integer], groups: NDArray[np.generic] | None) -> bool:
    return i != j and not (groups is not None and labels[i] == labels[j] and groups[i] == groups[j])


def ranked(
    d: Floats,
    labels: NDArray[np.integer],
    query: int,
    gallery: list[int],
    groups: NDArray[np.generic] | None = None,
) -> list[bool]:
    """Whether the 1st, 2nd ... nearest gallery image is of the query's class; at a tie the negative comes first."""
    others = [j for j in gallery if is_pair(query, j, labels, groups)]
    others.sort(key=lambda j: (d[query, j], labels[j] == labels[query]))
    return [bool(labels[j] == labels[query]) for j in others]


def retrieval(
    d: Floats,
    labels: NDArray[np.integer],
    ks: tuple[int, ...],
    is_query: NDArray[np.bool_] | None = None,
    groups: NDArray[np.generic] | None = None,
) -> dict[str, float]:
    """R@k, MAP@R and R-precision, means over the queries that have a positive."""
    n = len(labels)
    queries = [i for i in range(n) if is_query is None or is_query[i]]
    gallery = [i for i in range(n) if is_query is None or not is_query[i]]
    hits = [ranked(d, labels, i, gallery, groups) for i in queries]
    hits = [hit for hit in hits if any(hit)]
    result = {f"recall_at_{k}": float(np.mean([any(hit[:k]) for hit in hits])) for k in ks}
    result["map_at_r"] = float(np.mean([_average_precision(hit) for hit in hits]))
    result["r_precision"] = float(np.mean([sum(hit[: sum(hit)]) / sum(hit) for hit in hits]))
    return result


def _average_precision(hit: list[bool]) -> float:
    r = sum(hit)
    return sum(sum(hit[: i + 1]) / (i + 1) for i in range(r) if hit[i]) / r


def smallest(values: list[float], share: float) -> float:
    """The ceil(share x M)-th smallest of M values."""
    rank = max(1, math.ceil(Fraction(repr(share)) * len(values)))
    return sorted(values)[rank - 1]


class Oracle:
    """All pairs of one input, split into positive and negative ones."""

    def __init__(
        self,
        embeddings: NDArray[np.floating],
        labels: NDArray[np.integer],
        is_query: NDArray[np.bool_] | None = None,
        groups: NDArray[np.generic] | None = None,
    ):
        self.d, self.labels = distances(embeddings), labels
        pairs = all_pairs(labels, is_query, groups)
        self.positive = [(i, j) for i, j in pairs if labels[i] == labels[j]]
        self.negative = [(i, j) for i, j in pairs if labels[i] != labels[j]]
        self.classes = sorted({int(labels[i]) for i, _ in self.positive})
        self.positive_of: dict[int, list[float]] = {}
        self.negative_of: dict[int, list[float]] = {}
        for i, j in self.positive:
            self.positive_of.setdefault(int(labels[i]), []).append(self.d[i, j])
        for i, j in self.negative:
            for end in (i, j):
                self.negative_of.setdefault(int(labels[end]), []).append(self.d[i, j])

    def threshold(self, far: float) -> float:
        return smallest([self.d[p] for p in self.negative], far)

    def true_accept_rate(self, far: float) -> float:
        return float(np.mean([self.d[p] <= self.threshold(far) for p in self.positive]))

    def equal_error_rate(self) -> float:
        positive, negative = (np.array([self.d[p] for p in ps]) for ps in (self.positive, self.negative))
        for t in sorted([*positive, *negative]):
            far, frr = float(np.mean(negative <= t)), float(np.mean(positive > t))
            if far >= frr:
                return (far + frr) / 2
        raise AssertionError("at the largest distance all are accepted")

    def sensitivity(self, label: int, t: float) -> float:
        return float(np.mean([d <= t for d in self.positive_of[label]]))

    def specificity(self, label: int, t: float) -> float:
        return float(np.mean([d > t for d in self.negative_of[label]]))

    def utility(self, thresholds: Floats) -> Floats:
        rows = [[self._utility(label, t) for t in thresholds] for label in self.classes]
        return np.array(rows)

    def _utility(self, label: int, t: float) -> float:
        psi, phi = self.sensitivity(label, t), self.specificity(label, t)
        return 2 * phi * psi / (phi + psi) if phi + psi else 0.0


def opis(utility: Floats, thresholds: Floats) -> float:
    """Trapezoid integral of the squared deviation from the mean utility, over classes and range."""
    squares = np.array([[(u - utility[:, t].mean()) ** 2 for t, u in enumerate(row)] for row in utility])
    width = thresholds[-1] - thresholds[0]
    return sum(_integral(row, thresholds) for row in squares) / (len(utility) * width)


def epsilon_opis(utility: Floats, thresholds: Floats, epsilon: float) -> float:
    """Squared gap of the mean utilities of the best and worst ceil(epsilon T) classes by mean utility."""
    width = thresholds[-1] - thresholds[0]
    order = sorted(range(len(utility)), key=lambda i: _integral(utility[i], thresholds))
    size = max(1, math.ceil(Fraction(repr(epsilon)) * len(utility)))
    gap = utility[order[-size:]].mean(axis=0) - utility[order[:size]].mean(axis=0)
    return _integral(gap**2, thresholds) / width


def mean_utility(utility: Floats, thresholds: Floats) -> float:
    """Mean over classes and range."""
    width = thresholds[-1] - thresholds[0]
    return float(np.mean([_integral(row, thresholds) / width for row in utility]))


def _integral(values: Floats, at: Floats) -> float:
    return float(sum((values[k] + values[k + 1]) / 2 * (at[k + 1] - at[k]) for k in range(len(at) - 1)))


def expected_metrics(
    x: NDArray[np.floating],
    labels: NDArray[np.integer],
    num_thresholds: int,
    is_query: NDArray[np.bool_] | None = None,
    groups: NDArray[np.generic] | None = None,
) -> dict[str, float]:
    """Every metric that the oracle knows, by the names of evaluate()."""
    oracle = Oracle(x, labels, is_query, groups)
    thresholds = np.linspace(oracle.threshold(0.01), oracle.threshold(0.1), num_thresholds)
    utility = oracle.utility(thresholds)
    return retrieval(oracle.d, labels, (1, 2, 4, 8), is_query, groups) | {
        "opis": opis(utility, thresholds),
        "epsilon_opis": epsilon_opis(utility, thresholds, 0.1),
        "mean_utility": mean_utility(utility, thresholds),
        "distance_min": oracle.threshold(0.01),
        "distance_max": oracle.threshold(0.1),
        "equal_error_rate": oracle.equal_error_rate(),
        **{f"tar_at_far_{f}": oracle.true_accept_rate(f) for f in (0.1, 0.01, 0.001, 0.0001)},
    }

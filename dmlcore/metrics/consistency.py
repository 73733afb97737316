"""OPIS, the operating-point-inconsistency score, its floor-corrected form and its interval.

Shapes: C classes with a positive pair, E of them large enough to split, T equally spaced thresholds, S splits.
docs/opis.md carries the proof and the plot.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.pairwise.order_statistics import share_count

Floats = NDArray[np.float64]
BLOCK = 128  # classes: 100 KB of values at 101 thresholds


def utility(sensitivity: Floats, specificity: Floats) -> Floats:
    """Return the harmonic mean of both shares, element by element.

    U = 2 phi psi / (phi + psi), 0 where both are 0 (c = 1 in (1 + c^2) phi psi / (c^2 phi + psi)).
    """
    total = sensitivity + specificity
    return np.divide(2.0 * sensitivity * specificity, total, out=np.zeros_like(total), where=total > 0)


def range_mean(values: Floats) -> Floats:
    """Average over the last axis, T equally spaced thresholds, by the trapezoid rule.

    Equals the integral over the range divided by its width; a range of width 0 gives the value there.
    """
    mean: Floats = (values.sum(-1) - (values[..., 0] + values[..., -1]) / 2.0) / (values.shape[-1] - 1)
    return mean


def opis(class_utility: Floats) -> float:
    """Compute the spread of the utility over the classes, averaged over the range; lower is better.

    Args: class_utility: [C, T], U_i(d).
    Returns: sum_i INT (U_i - Ubar)^2 dd / (C (dmax - dmin)).
    Reference: Zhang et al., Threshold-Consistent Margin Loss, ICLR 2024, arXiv 2307.04047.
    """
    return float(range_mean(class_utility.var(axis=0)))


def epsilon_opis(class_utility: Floats, epsilon: float) -> float:
    """Compute the squared gap between the best and the worst classes, averaged over the range.

    Classes are ranked once, by their mean utility over the range (ties by label order); best and worst are the
    max(1, ceil(epsilon C)) at either end. INT (Ubar_best - Ubar_worst)^2 dd / (dmax - dmin).
    Args: class_utility: [C, T]; epsilon: share of the classes in 0..1.
    Reference: as for `opis`; the ranking rule is this project's reading.
    """
    order = np.argsort(range_mean(class_utility), kind="stable")
    size = share_count(epsilon, len(order))
    gap = class_utility[order[-size:]].mean(axis=0) - class_utility[order[:size]].mean(axis=0)
    return float(range_mean(gap**2))


def size_groups(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Group classes of about the same size, four groups to an octave, exact up to 7: the group's smallest size, [E]."""
    step = np.maximum(1, 2.0 ** (np.floor(np.log2(np.maximum(count, 1))) - 2)).astype(np.int64)
    return count // step * step


def linear_utility(sensitivity: Floats, specificity: Floats, psi: Floats, phi: Floats) -> Floats:
    """Linearise the utility at psi [T], phi [T]: unlike that of U, its mean does not depend on the number of images.

    Reference: first-order expansion of 2 phi psi / (phi + psi).
    """
    total = np.maximum(psi + phi, 1e-12) ** 2
    by_psi, by_phi = 2.0 * phi**2 / total, 2.0 * psi**2 / total
    linear: Floats = utility(psi, phi) + by_psi * (sensitivity - psi) + by_phi * (specificity - phi)
    return linear


def row_blocks(count: int) -> Iterator[slice]:
    """Divide rows into blocks that stay in the cache: numpy's temporaries of whole arrays cost 3 times as much."""
    return (slice(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK))


def centred_utility(
    rates: Callable[[slice], tuple[Floats, Floats]], center: tuple[Floats, Floats], groups: NDArray[np.int64]
) -> Floats:
    """Compute the utility of E classes, shifting each size group so that its mean is that of the tangent: [E, T].

    U is concave, so that small classes score lower for their size alone; without this, classes of one law and mixed
    sizes would show an inconsistency of up to 12 % of the raw one.

    Args: rates: of a block of classes, sensitivity and specificity, two [.., T]; center: the tangent's psi [T] and
    phi [T]; groups: [E], of `size_groups`.
    """
    names, group = np.unique(groups, return_inverse=True)
    member = np.equal.outer(np.arange(len(names)), group).astype(np.float64)
    values, shift = np.empty((len(groups), len(center[0]))), np.zeros((len(names), len(center[0])))
    for block in row_blocks(len(groups)):
        sensitivity, specificity = rates(block)
        values[block] = utility(sensitivity, specificity)
        tangent = linear_utility(sensitivity, specificity, *center)
        shift += member[:, block] @ (tangent - values[block])
    shift /= np.bincount(group)[:, None]
    for block in row_blocks(len(groups)):
        values[block] += shift[group[block]]
    return values


def range_products(first: Floats, second: Floats) -> Floats:
    """Average the product of two [E, T] over the range: [E]."""
    return np.concatenate([range_mean(first[block] * second[block]) for block in row_blocks(len(first))])


def half_covariance(first: Floats, second: Floats, weights: Floats) -> Floats:
    """Compute the covariance over the classes of two halves' utilities, averaged over the range, by row of weights.

    The noise of two halves is independent: what they share is the spread of the classes. OPIS, the variance of one
    sample, has the noise of few images on top.

    Args: first, second: [E, T]; weights: [B, E], each row summing to E (ones, or how often a class was drawn).
    Returns: [B], range_mean(sum_i w_i (A_i - Abar)(B_i - Bbar) / E), the divisor of OPIS itself.
    """
    product = weights @ range_products(first, second)[:, None]
    means = range_mean((weights @ first) * (weights @ second))[:, None] / len(first)
    return ((product - means) / len(first))[:, 0]


def corrected_opis(
    halves: Iterable[tuple[Floats, Floats]], weights: Floats, not_seen: Floats
) -> tuple[Floats, float]:
    """Average `half_covariance` over the splits, [B]. Never clipped: noise about 0 must average to 0.

    Args: halves: two [E, T] of each split; weights: [B, E]; not_seen: share of a class's divisions left out, [E].
    Returns: the averages, and the standard error that the choice of splits leaves in that of equal weights, classes
    being split independently: sqrt(sum_i f_i s_i^2 / S) / E, s_i^2 the variance over the splits of class i's product
    and f_i = not_seen (sampling without replacement). Reference: Cochran, Sampling Techniques, 1977, theorem 2.2.
    """
    values, products = [], []
    for first, second in halves:
        values.append(half_covariance(first, second, weights))
        products.append(range_products(first - first.mean(axis=0), second - second.mean(axis=0)))
    variance = (not_seen * np.var(products, axis=0, ddof=1)).sum() / len(products)
    return np.mean(values, axis=0), float(np.sqrt(variance)) / len(not_seen)


def bootstrap_weights(count: int, draws: int, rng: np.random.Generator) -> Floats:
    """Draw how often each class is in each bootstrap sample, [draws, count]; each row sums to `count`."""
    return rng.multinomial(count, np.full(count, 1.0 / count), size=draws).astype(np.float64)


def bootstrap_opis(class_utility: Floats, weights: Floats) -> Floats:
    """Compute OPIS of each bootstrap sample of the rows of [C, T]: [B]."""
    return half_covariance(class_utility, class_utility, weights)


def percentile_interval(draws: Floats) -> tuple[float, float]:
    """Return the middle 95 %; NaN without draws."""
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)

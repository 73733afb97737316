"""The intervals of pooled rates cover the truth; those that take pairs as independent do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from dmlcore.calibration import drift, measure_rates
from dmlcore.calibration.intervals import Rate
from dmlcore.metrics.inputs import build_pairs
from tests.calibration.laws import draw, true_far, true_frr

DISTANCE = 0.3
SIMULATIONS = 200


@pytest.fixture(scope="module")
def simulated():
    return [
        measure_rates(
            build_pairs(*draw(60, 5, np.random.default_rng((7, k))), None, torch.device("cpu")),
            1.0 - DISTANCE**2 / 2.0,
        )
        for k in range(SIMULATIONS)
    ]


@pytest.mark.parametrize(("kind", "law"), [("far", true_far), ("frr", true_frr)])
def test_the_interval_covers_the_truth(simulated, kind, law):
    truth, rates = law(DISTANCE), [getattr(found, kind) for found in simulated]
    covered = np.mean([rate.low <= truth <= rate.high for rate in rates])
    assert 0.9 <= covered <= 0.99
    assert np.mean([rate.value for rate in rates]) == pytest.approx(truth, rel=0.02)
    spread = np.std([rate.value for rate in rates])
    assert np.mean([rate.standard_error for rate in rates]) == pytest.approx(spread, rel=0.2)
    wilson = [stats.binomtest(r.errors, r.pairs).proportion_ci(method="wilson") for r in rates]
    assert np.mean([interval.low <= truth <= interval.high for interval in wilson]) < 0.8


def test_the_drift_of_splits_of_one_law_covers_zero(simulated):
    pairs = zip(simulated[::2], simulated[1::2], strict=True)
    moved = [drift(one.far, other.far) for one, other in pairs]
    assert 0.9 <= np.mean([m.low <= 0.0 <= m.high for m in moved]) <= 1.0
    assert np.mean([m.difference for m in moved]) == pytest.approx(0.0, abs=0.005)


def test_the_variance_of_the_far_equals_a_sum_over_pairs_of_pairs():
    """Aronow et al., equation 5, by going through all pairs of class pairs that share a class."""
    x, y = draw(9, 4, np.random.default_rng(0))
    keep = np.delete(np.arange(len(y)), [1, 2, 30])  # classes of several sizes
    x, y = x[keep], y[keep]
    found = measure_rates(build_pairs(x, y, None, torch.device("cpu")), 1.0 - DISTANCE**2 / 2.0)
    accepted = 2.0 - 2.0 * x @ x.T <= DISTANCE**2
    residual = {}
    for i in range(9):
        for j in range(i + 1, 9):
            block = accepted[np.ix_(y == i, y == j)]
            residual[i, j] = block.sum() - found.far.value * block.size
    total = sum(a * b for p, a in residual.items() for q, b in residual.items() if set(p) & set(q))
    own = sum(a * a for a in residual.values())
    variance = max(total, own) * 9 / 8 / found.far.pairs**2
    assert found.far.standard_error == pytest.approx(variance**0.5)


def test_without_an_error_the_bound_is_that_of_disjoint_pairs_of_classes():
    y = np.repeat(np.arange(10), 3)
    x = np.eye(10)[y] + 0.01 * np.random.default_rng(0).normal(size=(30, 10))
    found = measure_rates(build_pairs(x, y, None, torch.device("cpu")), 0.5)
    assert (found.far.value, found.far.low, found.frr.low) == (0.0, 0.0, 0.0)
    assert found.far.high == pytest.approx(1 - 0.025 ** (1 / 5))
    assert found.frr.high == pytest.approx(1 - 0.025 ** (1 / 10))


def test_drift_from_nothing_has_no_ratio():
    nothing, some = (Rate(errors, 100, 0.01, 0.0, 0.1, 20) for errors in (0, 3))
    assert drift(nothing, some).ratio is None
    assert drift(some, nothing).ratio == 0.0

"""Every metric against the naive float64 oracle, on unequal classes with singletons, for each way to walk the pairs."""

import numpy as np
import pytest

from dmlcore.metrics.evaluation import Evaluation, evaluate
from tests.reference import metrics as reference

LABEL_IDS = np.array([2**40 + 1, 2**40 + 2, -7, 3, 2**25, 2**25 + 1, 12, 13, 99, 100, -(2**50)])
SIZES = (2, 5, 9, 1, 12, 4, 3, 6, 1, 8, 7)


def make_input(seed: int = 0, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """58 embeddings in 11 classes of 1 to 12 images, shuffled, of differing spread."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(SIZES)), SIZES)
    centres = rng.standard_normal((len(SIZES), width))
    spread = np.linspace(0.2, 1.2, len(SIZES))[classes, None]
    x = (centres[classes] + spread * rng.standard_normal((len(classes), width))).astype(np.float32)
    order = rng.permutation(len(classes))
    return x[order], LABEL_IDS[classes[order]]


def make_queries(count: int) -> np.ndarray:
    return np.random.default_rng(1).random(count) < 0.4


def expected(x: np.ndarray, y: np.ndarray, e: Evaluation, is_query: np.ndarray | None) -> dict[str, float]:
    """What the oracle says, for every key it knows."""
    oracle = reference.Oracle(x, y, is_query)
    thresholds = np.linspace(oracle.threshold(0.01), oracle.threshold(0.1), len(e.thresholds))
    utility = oracle.utility(thresholds)
    return reference.retrieval(oracle.d, y, (1, 2, 4, 8), is_query) | {
        "opis": reference.opis(utility, thresholds),
        "epsilon_opis": reference.epsilon_opis(utility, thresholds, 0.1),
        "mean_utility": reference.mean_utility(utility, thresholds),
        "distance_min": oracle.threshold(0.01),
        "distance_max": oracle.threshold(0.1),
        "equal_error_rate": oracle.equal_error_rate(),
        **{f"tar_at_far_{f}": oracle.true_accept_rate(f) for f in (0.1, 0.01, 0.001, 0.0001)},
    }


@pytest.mark.parametrize("protocol", ["all", "query and gallery"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_metrics_equal_the_oracle(seed: int, protocol: str) -> None:
    x, y = make_input(seed)
    is_query = make_queries(len(y)) if protocol != "all" else None
    e = evaluate(x, y, is_query=is_query, num_thresholds=21)
    want = expected(x, y, e, is_query)
    assert {key: e.metrics[key] for key in want} == pytest.approx(want, abs=1e-5)


def test_arrays_equal_the_oracle() -> None:
    x, y = make_input(3)
    e, oracle = evaluate(x, y), reference.Oracle(x, y)
    t = oracle.threshold(0.01)
    np.testing.assert_array_equal(e.class_labels, oracle.classes)
    thresholds = np.linspace(t, oracle.threshold(0.1), 101)
    np.testing.assert_allclose(e.thresholds, thresholds, atol=1e-6)
    steps = [0, 17, 50, 83, 100]
    np.testing.assert_allclose(e.utility[:, steps], oracle.utility(thresholds[steps]), atol=1e-5)
    np.testing.assert_allclose(e.frr, [1 - oracle.sensitivity(c, t) for c in oracle.classes], atol=1e-5)
    np.testing.assert_allclose(e.far, [1 - oracle.specificity(c, t) for c in oracle.classes], atol=1e-5)

"""Every metric against the naive float64 oracle, on unequal classes with singletons, for each protocol."""

import numpy as np
import pytest

from dmlcore.metrics.evaluation import evaluate
from dmlcore.metrics.pairwise.compress import compress_above
from dmlcore.metrics.pairwise.numba_sweep import sort_segments
from dmlcore.metrics.pairwise.tiles import Worker
from tests.reference import metrics as reference

LABEL_IDS = np.array([2**40 + 1, 2**40 + 2, -7, 3, 2**25, 2**25 + 1, 12, 13, 99, 100, -(2**50)])
SIZES = (2, 5, 9, 1, 12, 4, 3, 6, 1, 8, 7)


# Each engine has its turn at every test of this file.
pytestmark = pytest.mark.parametrize("engine", ["compiled", "plain"], indirect=True, scope="module")


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


@pytest.mark.parametrize("protocol", ["all", "query and gallery"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_metrics_equal_the_oracle(seed: int, protocol: str) -> None:
    x, y = make_input(seed)
    is_query = make_queries(len(y)) if protocol != "all" else None
    e = evaluate(x, y, is_query=is_query, num_thresholds=21)
    want = reference.expected_metrics(x, y, len(e.thresholds), is_query)
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


def test_each_query_s_positives_are_sorted_alone() -> None:
    """Neighbours of one length are sorted together; lengths of 0 and 1 and single runs are among them."""
    rng = np.random.default_rng(0)
    for lengths in ([3], [0], [1, 1], [2, 2, 2, 0, 0, 5, 5, 1, 4, 4, 3], rng.integers(0, 6, 200).tolist()):
        start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        values = rng.standard_normal(start[-1]).astype(np.float32)
        want = [np.sort(part)[::-1] for part in np.split(values, start[1:-1])]
        sort_segments(values, start)
        np.testing.assert_array_equal(values, np.concatenate(want))


def test_what_reaches_a_threshold_is_copied_in_order() -> None:
    """The instructions of this processor, 8 or 16 values at a time, against one at a time; equality reaches."""
    rng, buffers = np.random.default_rng(0), Worker([]).buffers
    for _ in range(50):
        row = rng.integers(-50, 50, 1024).astype(np.float32) / 50
        start, end = sorted(rng.integers(0, 1025, 2).tolist())
        threshold = np.float32(rng.integers(-50, 50) / 50)
        want = [(value, j) for j, value in enumerate(row) if start <= j < end and value >= threshold]
        count = compress_above(row, start, end, threshold, buffers, 0)
        found = zip(buffers.values[:count].tolist(), buffers.columns[:count].tolist(), strict=True)
        assert list(found) == want

"""What evaluate() refuses, and that ties and collapse never flatter."""

import numpy as np
import pytest
import torch

from dmlcore.metrics.evaluation import evaluate
from tests.metrics.test_against_reference import make_input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (np.where(np.arange(x.size).reshape(x.shape) == 9, np.nan, x), y), "finite"),
        (lambda x, y: (np.where(np.arange(x.size).reshape(x.shape) == 9, np.inf, x), y), "finite"),
        (lambda x, y: (x, y[:-1]), r"\[N, D\] with one label each"),
        (lambda x, y: (x[0], y), r"\[N, D\] with one label each"),
        (lambda x, y: (x, np.zeros_like(y)), "at least 2 classes"),
        (lambda x, y: (x, np.arange(len(y))), "at least one positive"),
        (lambda x, y: (x, y.astype(float)), "must be integers"),
        (lambda x, y: (x.astype(int), y), "floating point"),
        (lambda x, y: (np.ones_like(x), y), "collapsed"),
        (lambda x, y: (x * 0, y), "all zeros"),
        (lambda x, y: (np.where(np.arange(len(x))[:, None] % 3 == 0, x, x[:1]), y), "collapsed"),
    ],
)
def test_input_is_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(*change(*make_input()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": ()}, "ks must"),
        ({"ks": (0,)}, "ks must"),
        ({"far_range": (0.1, 0.01)}, "far_range must"),
        ({"far_range": (0.0, 0.01)}, "far_range must"),
        ({"distance_range": (1.0, 3.0)}, "distance_range must"),
        ({"num_thresholds": 1}, "num_thresholds must"),
        ({"epsilon": 0.0}, "epsilon must"),
        ({"bootstrap": -1}, "bootstrap must"),
        ({"memory_bytes": 1}, "memory_bytes must"),
        ({"is_query": np.ones(58, dtype=bool)}, "leave a gallery"),
        ({"is_query": np.ones(58)}, "bool"),
    ],
)
def test_argument_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(*make_input(), **options)


def test_a_tie_goes_against_the_model() -> None:
    x = np.array(
        [[1, 0], [0, 1], [0, 1], [-1, 0.5]], dtype=np.float32
    )  # the query's positive equals a negative
    y = np.array([0, 0, 1, 1])
    assert evaluate(x[[0, 1, 2]], y[[0, 1, 2]]).metrics["recall_at_1"] == 0.0
    assert evaluate(x, y).metrics["recall_at_2"] < 1.0


def test_embeddings_of_whole_numbers_tie_exactly() -> None:
    """Few distinct similarities: every order statistic, count and rank falls on a tie."""
    from tests.reference import metrics as reference

    rng = np.random.default_rng(0)
    x, y = np.eye(18, dtype=np.float32)[rng.integers(0, 18, 40)], rng.integers(0, 7, 40)
    x[:20, 0] += 1.0
    e, oracle = evaluate(x, y, distance_range=(0.3, 0.98), num_thresholds=5), reference.Oracle(x, y)
    np.testing.assert_allclose(e.utility, oracle.utility(e.thresholds), atol=1e-6)
    assert e.metrics["recall_at_1"] < 0.5


def test_gradients_are_not_touched() -> None:
    x, y = make_input()
    leaf = torch.from_numpy(x).requires_grad_()
    assert evaluate(leaf, y).metrics == evaluate(x, y).metrics
    assert leaf.grad is None

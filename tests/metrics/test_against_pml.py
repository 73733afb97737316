"""pytorch-metric-learning is right on R@1, MAP@R and R-precision: the same neighbours give the same numbers."""

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

from dmlcore.metrics.evaluation import evaluate
from tests.metrics.test_against_reference import make_input


def test_equal_where_it_is_right() -> None:
    x, y = make_input()
    names = ("precision_at_1", "mean_average_precision_at_r", "r_precision")
    small = torch.from_numpy(np.unique(y, return_inverse=True)[1])  # it merges ids above 2^24
    calculator = AccuracyCalculator(
        include=names, k="max_bin_count", knn_func=CustomKNN(CosineSimilarity()), device=torch.device("cpu")
    )
    theirs = calculator.get_accuracy(torch.from_numpy(x), small)
    ours = evaluate(x, y).metrics
    for mine, name in zip(("recall_at_1", "map_at_r", "r_precision"), names, strict=True):
        assert ours[mine] == pytest.approx(theirs[name], abs=1e-6), name

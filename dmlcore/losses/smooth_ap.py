"""Smooth-AP loss: average precision with a sigmoid for the step."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from dmlcore.losses.base import MetricLoss, check_number
from dmlcore.losses.pairwise import pairwise_loss
from dmlcore.losses.smooth_ranks import smooth_rank_loss


class SmoothAP(MetricLoss):
    """One minus the smooth average precision of every image as a query against the rest of the batch.

    L = 1 - mean over queries of (1/#P) sum_{i in P} (1 + sum_{j in P} g_ij) / (1 + sum_{j in P or N} g_ij), j != i,
    g_ij = sigmoid((s_j - s_i) / temperature), P and N the query's positives and negatives, both without the query.

    Args:
        temperature: above 0.

    Raises:
        ValueError: a parameter is out of its range.

    Reference: Brown, Xie, Kalogeiton, Zisserman, "Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval",
    ECCV 2020, eq. 5 and 6.

    Edge case: a query without a positive is left out; none left -> 0 with zero gradient.
    """

    def __init__(self, temperature: float = 0.01) -> None:
        super().__init__()
        self.temperature = check_number("smooth_ap.temperature", temperature, low=0, open_low=True)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        kernel = partial(
            smooth_rank_loss,
            score=smooth_average_precision,
            temperature=self.temperature,
            exclude_query=True,
        )
        return pairwise_loss(embeddings, labels, kernel)


def smooth_average_precision(ahead: Tensor, own_ahead: Tensor) -> Tensor:
    """Average over a query's positives (rank among positives / rank among all): two [m, n, k] -> [m, n]."""
    return ((1 + own_ahead) / (1 + ahead)).mean(dim=2)

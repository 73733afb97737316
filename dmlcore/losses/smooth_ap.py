"""Smooth-AP loss: average precision with a sigmoid for the step."""

from __future__ import annotations

from torch import Tensor

from dmlcore.losses.base import MetricLoss, check_number
from dmlcore.losses.pairs import ClassGroup, pair_kernel
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

    takes_host_labels = True

    def __init__(self, temperature: float = 0.01) -> None:
        super().__init__()
        self.temperature = check_number("smooth_ap.temperature", temperature, low=0, open_low=True)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return pairwise_loss(embeddings, labels, smooth_ap, self.temperature)


@pair_kernel
def smooth_ap(matrix: Tensor, groups: list[ClassGroup], temperature: float) -> Tensor:
    """Compute the loss of [B, B] cosine similarities sorted by class, overwritten with the gradient."""
    return smooth_rank_loss(matrix, groups, smooth_average_precision, temperature, exclude_query=True)


def smooth_average_precision(ahead: Tensor, own_ahead: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Average over a query's positives (rank among positives / rank among all): two [m, q, k] -> [m, q], gradients."""
    by_own = 1 / ((1 + ahead) * ahead.shape[2])
    terms = (1 + own_ahead) * by_own
    return terms.sum(dim=2), -terms / (1 + ahead), by_own

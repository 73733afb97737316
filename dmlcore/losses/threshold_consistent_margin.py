"""Threshold-consistent margin loss (TCM), the regulariser that this project is about."""

from __future__ import annotations

import torch
from torch import Tensor

from dmlcore.losses.base import MetricLoss, check_number
from dmlcore.losses.chosen_pairs import ChosenPairs, mean_where
from dmlcore.losses.pairs import ClassGroup, class_blocks, pair_kernel, row_chunks
from dmlcore.losses.pairwise import pairwise_loss


class ThresholdConsistentMargin(MetricLoss):
    """Pull positives above one cosine margin and push negatives below another, averaged over the violators.

    L = w+ sum_{s+ <= m+} (m+ - s+) / #{s+ <= m+} + w- sum_{s- >= m-} (s- - m-) / #{s- >= m-}
    over the cosine similarities s+ of all positive and s- of all negative pairs of the batch.

    Args:
        positive_margin: m+, in -1..1. Set the margins on data held out from the training classes.
        negative_margin: m-, in -1..1.
        positive_weight: w+, at least 0.
        negative_weight: w-, at least 0.

    Raises:
        ValueError: a parameter is out of its range.

    Reference: Zhang, Xu, Tang, Fang, Wu, Tighe, Xing, "Threshold-Consistent Margin Loss for Open-World Deep Metric
    Learning", ICLR 2024 (arXiv 2307.04047). Used on top of a base loss.

    Edge case: no violator of a kind -> that part is 0 with zero gradient.
    """

    takes_host_labels = True

    def __init__(
        self,
        positive_margin: float = 0.9,
        negative_margin: float = 0.5,
        positive_weight: float = 1.0,
        negative_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.positive_margin = check_number("tcm.positive_margin", positive_margin, low=-1, high=1)
        self.negative_margin = check_number("tcm.negative_margin", negative_margin, low=-1, high=1)
        self.positive_weight = check_number("tcm.positive_weight", positive_weight, low=0)
        self.negative_weight = check_number("tcm.negative_weight", negative_weight, low=0)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        margins = (self.positive_margin, self.negative_margin)
        weights = (self.positive_weight, self.negative_weight)
        return pairwise_loss(
            embeddings, labels, threshold_consistent_margin, *margins, *weights, symmetric=True
        )

    def compute_pairs(self, vectors: Tensor, references: Tensor, pairs: ChosenPairs) -> Tensor:
        similarities = vectors @ references.T
        below = pairs.positives * (similarities <= self.positive_margin)
        above = pairs.negatives * (similarities >= self.negative_margin)
        positive = mean_where(self.positive_margin - similarities, below)
        negative = mean_where(similarities - self.negative_margin, above)
        return self.positive_weight * positive + self.negative_weight * negative


@pair_kernel
def threshold_consistent_margin(
    matrix: Tensor,
    groups: list[ClassGroup],
    positive_margin: float,
    negative_margin: float,
    positive_weight: float,
    negative_weight: float,
) -> Tensor:
    """Compute TCM of [B, B] cosine similarities sorted by class, overwritten with the gradient."""
    matrix.fill_diagonal_(torch.inf)  # an image is no pair with itself, even at a margin of 1
    blocks = [class_blocks(matrix, group) for group in groups]
    below = [block <= positive_margin for block in blocks]
    shortfalls = [
        torch.where(mask, positive_margin - block, 0) for mask, block in zip(below, blocks, strict=True)
    ]
    positive_count = matrix.new_zeros(()).add_(sum(mask.sum() for mask in below)).clamp_(min=1)
    positive = sum(part.sum() for part in shortfalls) / positive_count
    for block in blocks:
        block.fill_(-torch.inf)
    negative_sum, negative_count = _hinge_and_count(matrix, negative_margin)
    matrix.mul_(negative_weight / negative_count)
    for mask, block in zip(below, blocks, strict=True):
        block.copy_(mask * (-positive_weight / positive_count))
    return positive_weight * positive + negative_weight * negative_sum / negative_count


def _hinge_and_count(matrix: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Sum the excesses over the margin and count them (at least 1); leaves 1 where there is one, else 0."""
    total, count = matrix.new_zeros(()), matrix.new_zeros(())
    for rows in row_chunks(matrix):
        total += (rows - margin).clamp_(min=0).sum()
        count += rows.ge_(margin).sum()
    return total, count.clamp_(min=1)

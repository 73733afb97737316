"""Contrastive loss on the distances of normalised embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from dmlcore.losses.base import MetricLoss, check_number
from dmlcore.losses.chosen_pairs import ChosenPairs, mean_where
from dmlcore.losses.pairs import ClassGroup, class_blocks, pair_kernel, row_chunks
from dmlcore.losses.pairwise import pairwise_loss


class Contrastive(MetricLoss):
    """Positives nearer than one margin, negatives farther than another.

    L = mean of relu(d+ - m+) over its non-zero terms + mean of relu(m- - d-) over its non-zero terms,
    d = sqrt(2 - 2 s) the distance of two normalised embeddings.

    Args:
        positive_margin: m+, in 0..2.
        negative_margin: m-, in 0..2.

    Raises:
        ValueError: a parameter is out of its range.

    Reference: Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006, eq. 4,
    without the squares, as in Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020.

    Edge cases: no non-zero term of a kind -> that part is 0; the gradient of a distance of 0 is 0.
    """

    takes_host_labels = True

    def __init__(self, positive_margin: float = 0.0, negative_margin: float = 1.0) -> None:
        super().__init__()
        self.positive_margin = check_number("contrastive.positive_margin", positive_margin, low=0, high=2)
        self.negative_margin = check_number("contrastive.negative_margin", negative_margin, low=0, high=2)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        margins = (self.positive_margin, self.negative_margin)
        return pairwise_loss(embeddings, labels, contrastive, *margins, symmetric=True)

    def compute_pairs(self, vectors: Tensor, references: Tensor, pairs: ChosenPairs) -> Tensor:
        squares = 2 - 2 * (vectors @ references.T)
        equal = squares < 4 * torch.finfo(squares.dtype).eps
        distances = squares.masked_fill(equal, 1).sqrt().masked_fill(equal, 0)  # a root has no slope at 0
        far = pairs.positives * (distances > self.positive_margin)
        near = pairs.negatives * (distances < self.negative_margin)
        positive = mean_where(distances - self.positive_margin, far)
        return positive + mean_where(self.negative_margin - distances, near)


@pair_kernel
def contrastive(
    matrix: Tensor, groups: list[ClassGroup], positive_margin: float, negative_margin: float
) -> Tensor:
    """Compute the contrastive loss of [B, B] cosine similarities sorted by class, overwritten with the gradient."""
    matrix.fill_diagonal_(1)
    blocks = [class_blocks(matrix, group) for group in groups]
    distances = [cosine_distances(block) for block in blocks]
    positive_sum = sum((far - positive_margin).clamp(min=0).sum() for far in distances)
    positive_count = sum((far > positive_margin).sum() for far in distances).clamp(min=1)  # type: ignore[union-attr]
    for block in blocks:
        block.fill_(-torch.inf)
    negative_sum, negative_count = _negatives(matrix, negative_margin)
    matrix.mul_(1 / negative_count)
    for block, far in zip(blocks, distances, strict=True):
        block.copy_(torch.where(far > positive_margin, -1 / (far * positive_count), 0))
    return positive_sum / positive_count + negative_sum / negative_count


def cosine_distances(similarities: Tensor) -> Tensor:
    """sqrt(2 - 2 s), exactly 0 where 2 - 2 s is within rounding of it."""
    squares = (similarities * -2).add_(2)
    return squares.masked_fill_(squares < 4 * torch.finfo(squares.dtype).eps, 0).sqrt_()


def _negatives(matrix: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Sum margin - d where it is above 0 and count such pairs (at least 1); leaves 1 / d there, else 0."""
    total, count = matrix.new_zeros(()), matrix.new_zeros(())
    for rows in row_chunks(matrix):
        distances = cosine_distances(rows)
        near = distances < margin
        total += torch.where(near, margin - distances, 0).sum()
        count += near.sum()
        rows.copy_(torch.where(near & (distances > 0), 1 / distances, 0))
    return total, count.clamp_(min=1)

"""Triplet loss over the semi-hard triplets of the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from dmlcore.losses.base import MetricLoss, check_number
from dmlcore.losses.chosen_pairs import ChosenPairs, mean_where
from dmlcore.losses.pairs import (
    ClassGroup,
    class_blocks,
    clear_single_images,
    other_columns,
    pair_kernel,
    query_chunks,
)
from dmlcore.losses.pairwise import pairwise_loss


class Triplet(MetricLoss):
    """A positive nearer than each semi-hard negative by a margin, in squared distances.

    L = mean over semi-hard triplets (a, p, n) of d_ap^2 - d_an^2 + m; semi-hard: d_ap^2 < d_an^2 < d_ap^2 + m.

    Args:
        margin: m, above 0.

    Raises:
        ValueError: a parameter is out of its range.

    Reference: Schroff, Kalenichenko, Philbin, "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR
    2015, eq. 2 and section 3.2. All semi-hard triplets count, not one a pair.

    Edge case: no semi-hard triplet -> 0 with zero gradient.
    """

    takes_host_labels = True

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = check_number("triplet.margin", margin, low=0, open_low=True)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return pairwise_loss(embeddings, labels, semi_hard_triplets, self.margin)

    def compute_pairs(self, vectors: Tensor, references: Tensor, pairs: ChosenPairs) -> Tensor:
        """Triplets that the caller chose count where they are above 0, as pairs of one anchor joined to triplets do."""
        similarities = vectors @ references.T
        if pairs.triplets is not None:
            anchors, positives, negatives = pairs.triplets
            hinges = 2 * (similarities[anchors, negatives] - similarities[anchors, positives]) + self.margin
            return mean_where(hinges, (hinges > 0).to(hinges.dtype))
        anchors, positives = pairs.positives.nonzero(as_tuple=True)
        hinges = 2 * (similarities[anchors] - similarities[anchors, positives].unsqueeze(1)) + self.margin
        counts = pairs.negatives[anchors] * pairs.positives[anchors, positives].unsqueeze(1)
        limit = torch.inf if pairs.mined else self.margin
        return mean_where(hinges, counts * ((hinges > 0) & (hinges < limit)))


@pair_kernel
def semi_hard_triplets(matrix: Tensor, groups: list[ClassGroup], margin: float) -> Tensor:
    """Compute the triplet loss of [B, B] cosine similarities sorted by class, overwritten with the gradient."""
    total, count = matrix.new_zeros(()), matrix.new_zeros(())
    for chunk, queries in query_chunks(groups, matrix):
        rows = matrix[chunk.rows].view(chunk.num_classes, chunk.size, -1)[:, queries]
        block = class_blocks(matrix, chunk)[:, queries]
        images, others = other_columns(chunk.size, queries, matrix.device)
        positives = block[:, images, others].unsqueeze(3)
        block.fill_(-torch.inf)
        violations = (rows.unsqueeze(2) - positives).mul_(2).add_(margin)  # d_ap^2 - d_an^2 + m
        semi_hard = (violations > 0) & (violations < margin)
        total += violations.masked_fill_(~semi_hard, 0).sum()
        numbers = semi_hard.sum(dim=3)
        count += numbers.sum()
        rows.copy_(semi_hard.sum(dim=2))
        block[:, images, others] -= numbers
    clear_single_images(matrix, groups)
    count.clamp_(min=1)
    matrix.mul_(2 / count)
    return total / count

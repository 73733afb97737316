"""Circle loss on pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dmlcore.losses.base import MetricLoss, check_number
from dmlcore.losses.chosen_pairs import ChosenPairs, log_sum_exp, mean_where
from dmlcore.losses.pairs import ClassGroup, class_blocks, class_chunks, off_diagonal_mask, pair_kernel
from dmlcore.losses.pairwise import pairwise_loss


class Circle(MetricLoss):
    """Pairs weighted by how far they are from their optimum.

    L = mean over anchors of softplus(LSE_n(g [s_n + m]_+ (s_n - m)) + LSE_p(-g [1 + m - s_p]_+ (s_p - 1 + m))),
    LSE the log of the sum of exponentials; the weights [.]_+ are not differentiated.

    Args:
        margin: m, in 0..1.
        gamma: g, above 0.

    Raises:
        ValueError: a parameter is out of its range.

    Reference: Sun, Cheng, Zhang, Zhang, Zheng, Wang, Wei, "Circle Loss: A Unified Perspective of Pair Similarity
    Optimization", CVPR 2020, eq. 6 to 8.

    Edge cases: a second derivative is refused; an anchor without a positive or without a negative is left out,
    none left -> 0 with zero gradient.
    """

    takes_host_labels = True

    def __init__(self, margin: float = 0.4, gamma: float = 80.0) -> None:
        super().__init__()
        self.margin = check_number("circle.margin", margin, low=0, high=1)
        self.gamma = check_number("circle.gamma", gamma, low=0, open_low=True)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return pairwise_loss(embeddings, labels, circle, self.margin, self.gamma, twice=False)

    def compute_pairs(self, vectors: Tensor, references: Tensor, pairs: ChosenPairs) -> Tensor:
        similarities = vectors @ references.T
        fixed = similarities.detach()
        pull = -self.gamma * (1 + self.margin - fixed).clamp(min=0) * (similarities - 1 + self.margin)
        push = self.gamma * (fixed + self.margin).clamp(min=0) * (similarities - self.margin)
        positives, negatives = pairs.positives > 0, pairs.negatives > 0
        used = positives.any(dim=1) & negatives.any(dim=1)
        exponents = log_sum_exp(pull, positives, used) + log_sum_exp(push, negatives, used)
        return mean_where(functional.softplus(exponents), used.to(exponents.dtype))


@pair_kernel
def circle(matrix: Tensor, groups: list[ClassGroup], margin: float, gamma: float) -> Tensor:
    """Compute the circle loss of [B, B] cosine similarities sorted by class, overwritten with the gradient."""
    num_anchors = sum(group.num_classes * group.size for group in groups if group.size > 1)
    if num_anchors == 0 or (len(groups) == 1 and groups[0].num_classes == 1):
        return matrix.zero_().sum()
    total = matrix.new_zeros(())
    for chunk in class_chunks(groups, matrix):
        if chunk.size > 1:
            total += _class_terms(matrix, chunk, margin, gamma)
        else:
            matrix[chunk.rows].zero_()
    matrix.div_(num_anchors)
    return total / num_anchors


def _class_terms(matrix: Tensor, chunk: ClassGroup, margin: float, gamma: float) -> Tensor:
    """Sum a chunk's terms; overwrites its rows with their gradient."""
    rows = torch.unflatten(matrix[chunk.rows], 0, (chunk.num_classes, chunk.size))
    block = class_blocks(matrix, chunk)
    positives = block.clone()
    positive_slopes = (1 + margin - positives).clamp_(min=0).mul_(-gamma)
    positive_logits = positive_slopes * (positives - 1 + margin)
    positive_logits.masked_fill_(~off_diagonal_mask(chunk.size, matrix.device), -torch.inf)
    negative_slopes = (rows + margin).clamp_(min=0).mul_(gamma)
    negative_logits = rows.sub_(margin).mul_(negative_slopes)
    block.fill_(-torch.inf)
    negative_sums = torch.logsumexp(negative_logits, dim=2, keepdim=True)
    positive_sums = torch.logsumexp(positive_logits, dim=2, keepdim=True)
    exponents = negative_sums + positive_sums
    slope = exponents.sigmoid()
    negative_logits.sub_(negative_sums).exp_().mul_(slope).mul_(negative_slopes)
    block.copy_((positive_logits - positive_sums).exp_() * slope * positive_slopes)
    return functional.softplus(exponents).sum()

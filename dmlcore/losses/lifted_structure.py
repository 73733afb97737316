"""Lifted structured loss on plain Euclidean distances."""

from __future__ import annotations

import torch
from torch import Tensor

from dmlcore.losses.base import MetricLoss, check_number
from dmlcore.losses.chosen_pairs import ChosenPairs, mean_where
from dmlcore.losses.pairs import ClassGroup, class_blocks, class_chunks, pair_kernel
from dmlcore.losses.pairwise import pairwise_loss


class LiftedStructure(MetricLoss):
    """Each positive pair against all negatives of both of its ends.

    J_ij = log(sum_{k neg of i} e^{m - D_ik} + sum_{l neg of j} e^{m - D_jl}) + D_ij,
    L = sum over unordered positive pairs of relu(J_ij)^2 / (2 #P), D the Euclidean distance of unnormalised embeddings.

    Args:
        margin: m, at least 0.

    Raises:
        ValueError: a parameter is out of its range.

    Reference: Song, Xiang, Jegelka, Savarese, "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR
    2016, eq. 4.

    Edge cases: no positive pair or no negative pair -> 0; the gradient of a distance of 0 is 0.
    """

    cosine = False
    takes_host_labels = True

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = check_number("lifted_structure.margin", margin, low=0)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        # Distances do not see a common offset, but |x|^2 + |y|^2 - 2xy loses its digits to one.
        centred = embeddings - embeddings.detach().mean(dim=0)
        return pairwise_loss(centred, labels, lifted_structure, self.margin, cosine=False)

    def compute_pairs(self, vectors: Tensor, references: Tensor, pairs: ChosenPairs) -> Tensor:
        """A reference's negatives are the anchors paired with it; within a batch those that it is the anchor of."""
        distances = _distances_between(vectors, references)
        none = torch.finfo(distances.dtype).min / 4  # not -inf: the logarithm of an empty sum has no gradient
        terms = torch.where(pairs.negatives > 0, self.margin - distances + pairs.negatives.log(), none)
        pushes = torch.logsumexp(terms, dim=1)
        others = pushes if pairs.within else torch.logsumexp(terms, dim=0)
        hinges = (torch.logaddexp(pushes.unsqueeze(1), others) + distances).clamp(min=0)
        return mean_where(hinges.square(), pairs.positives) / 2


@pair_kernel
def lifted_structure(matrix: Tensor, groups: list[ClassGroup], margin: float) -> Tensor:
    """Compute the lifted structured loss of [B, B] dot products sorted by class, overwritten with the gradient."""
    num_pairs = sum(group.num_classes * group.size * (group.size - 1) // 2 for group in groups)
    if num_pairs == 0 or (len(groups) == 1 and groups[0].num_classes == 1):
        return matrix.zero_().sum()
    squares, total = matrix.diagonal().clone(), matrix.new_zeros(())
    for chunk in class_chunks(groups, matrix):
        total += _class_terms(matrix, squares, chunk, margin)
    # Rows now hold w = dL/dD / D; D^2 = x_i x_i + x_j x_j - 2 x_i x_j, so w / 2 goes to both ends, -w to the product.
    ends = (matrix.sum(dim=0) + matrix.sum(dim=1)) / 2
    matrix.neg_().diagonal().add_(ends)
    matrix.div_(num_pairs)
    return total / (2 * num_pairs)


def _class_terms(matrix: Tensor, squares: Tensor, chunk: ClassGroup, margin: float) -> Tensor:
    """Sum relu(J)^2 over the pairs of a chunk's classes; overwrites its rows with #P dL/dD_ij / D_ij."""
    block, n = class_blocks(matrix, chunk), chunk.size
    rows = _distances(matrix[chunk.rows], squares[chunk.rows].unsqueeze(1), squares)
    positives = block.clone()
    block.fill_(torch.inf)
    attraction = torch.logsumexp(margin - rows, dim=1).view(-1, n)
    both = torch.logaddexp(attraction.unsqueeze(2), attraction.unsqueeze(1))
    hinges = (both + positives).clamp_(min=0)
    hinges.diagonal(dim1=1, dim2=2).zero_()
    shares = (hinges * (attraction.unsqueeze(2) - both).exp()).sum(dim=2)
    weights = (margin - rows - attraction.view(-1, 1)).exp_().mul_(-shares.view(-1, 1))
    rows.copy_(_divide(weights, rows))
    block.copy_(_divide(hinges / 2, positives))
    return hinges.square().sum() / 2


def _distances(products: Tensor, squares: Tensor, other_squares: Tensor) -> Tensor:
    """Replace dot products by distances, exactly 0 where the square is within rounding of it."""
    scale = squares + other_squares
    products.mul_(-2).add_(scale)
    return products.masked_fill_(products < 4 * torch.finfo(products.dtype).eps * scale, 0).sqrt_()


def _divide(weights: Tensor, distances: Tensor) -> Tensor:
    """weights / distances, 0 at a distance of 0."""
    return weights.masked_fill(distances == 0, 0) / distances.masked_fill(distances == 0, 1)


def _distances_between(vectors: Tensor, references: Tensor) -> Tensor:
    """Return [B, R] distances, exactly 0 where the square is within rounding of it."""
    offset = vectors.detach().mean(dim=0)
    vectors, references = vectors - offset, references - offset
    scale = vectors.square().sum(dim=1, keepdim=True) + references.square().sum(dim=1)
    squares = scale - 2 * (vectors @ references.T)
    equal = squares < 4 * torch.finfo(squares.dtype).eps * scale
    return squares.masked_fill(equal, 1).sqrt().masked_fill(equal, 0)  # a root has no slope at 0

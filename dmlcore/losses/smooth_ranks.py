"""Smooth ranks of positives, shared by the losses that optimise a ranking measure.

For a query q and its positive i, j is ranked before i to the degree sigmoid((s_qj - s_qi) / temperature). B of them for
each of the P ordered positive pairs make P x B sigmoids, taken some classes at a time: value and gradient of a chunk
are finished while it is in the cache, so that no more than one B x B matrix is ever held.

Shapes: B batch, m classes of a chunk, n images of each, q of them queries, k = n - 1 positives of a query.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dmlcore.losses.pairs import (
    ClassGroup,
    class_blocks,
    clear_single_images,
    is_dual,
    other_columns,
    own_columns,
    query_chunks,
)

Score = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(sums of sigmoids over all j [m, q, k], the same over j in the class [m, q, k]) -> score of each query [m, q], and
its gradients by both."""


def smooth_rank_loss(
    matrix: Tensor, groups: list[ClassGroup], score: Score, temperature: float, exclude_query: bool
) -> Tensor:
    """Compute 1 - mean score of the queries that have a positive, 0 without such a query.

    Args:
        matrix: [B, B] similarities sorted by class; overwritten with the gradient of the loss.
        groups: of the sorted batch.
        score: from smooth ranks to the score of a query.
        temperature: of the sigmoid.
        exclude_query: the query itself is no rival of its positives.

    Returns:
        Scalar.
    """
    num_queries = sum(group.num_classes * group.size for group in groups if group.size > 1)
    total = matrix.new_zeros(())
    for chunk, queries in query_chunks(groups, matrix):
        total += _score_chunk(matrix, chunk, queries, score, temperature, exclude_query)
    clear_single_images(matrix, groups)
    matrix.mul_(-1 / (max(num_queries, 1) * temperature))
    return 1 - total / num_queries if num_queries else total


def _score_chunk(
    matrix: Tensor, chunk: ClassGroup, queries: slice, score: Score, temperature: float, exclude_query: bool
) -> Tensor:
    """Sum the scores of some queries; overwrites their rows with its gradient, times the temperature."""
    m, n = chunk.num_classes, chunk.size
    images, others = other_columns(n, queries, matrix.device)
    rows = matrix[chunk.rows].view(m, n, -1)[:, queries].div_(temperature)
    block = class_blocks(matrix, chunk)[:, queries]
    positives = block[:, images, others].unsqueeze(3)
    itself = torch.eye(n, dtype=torch.bool, device=matrix.device)
    if exclude_query:
        block.masked_fill_(itself[queries], -torch.inf)
    ahead = (rows.unsqueeze(2) - positives).sigmoid_()
    own = own_columns(ahead, chunk)  # one column for each image of the class
    own.masked_fill_(itself[others], 0)  # a positive is no rival of itself
    total, by_all, by_own = _score_gradient(score, ahead.sum(3), own.sum(3))
    # Forward differentiation would read the factors after they are overwritten.
    factor = ahead.clone() if is_dual(ahead) else ahead
    slopes = ahead.addcmul_(factor, factor, value=-1)
    own_slopes = own * by_own.unsqueeze(3)
    at_positives = by_all * slopes.sum(3) + own_slopes.sum(3)
    # In place with beta 0, not out=: forward differentiation, for the second derivative, has no out=.
    rows.view(-1, 1, len(matrix)).baddbmm_(
        by_all.view(-1, 1, n - 1), slopes.view(-1, n - 1, len(matrix)), beta=0
    )
    block += own_slopes.sum(2)
    block[:, images, others] -= at_positives
    return total


def _score_gradient(score: Score, sums: Tensor, own_sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of the scores and its gradient with respect to both sums."""
    scores, *gradients = score(sums, own_sums)
    # Far from the top recall's slope underflows; arithmetic on subnormal numbers takes 5 times as long.
    smallest = torch.finfo(sums.dtype).tiny * 1.0e10
    by_all, by_own = (gradient.masked_fill_(gradient.abs() < smallest, 0) for gradient in gradients)
    return scores.sum(), by_all, by_own

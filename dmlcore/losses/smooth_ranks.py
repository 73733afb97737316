"""Smooth ranks of positives, shared by the losses that optimise a ranking measure.

For a query q and its positive i, j is ranked before i to the degree sigmoid((s_qj - s_qi) / temperature). B of them for
each of the P ordered positive pairs make P x B sigmoids, taken some classes at a time: value and gradient of a chunk
are finished while it lies in the cache, so that no more than one B x B matrix is ever held.

Shapes: B batch, m classes of a chunk, n images of each, k = n - 1 positives of a query.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dmlcore.losses.pairs import ClassGroup, class_blocks, class_chunks, others, own_columns

Score = Callable[[Tensor, Tensor], Tensor]
"""(sums of sigmoids over all j [m, n, k], the same over j in the class [m, n, k]) -> score of each query [m, n]."""


def smooth_rank_loss(
    matrix: Tensor, groups: list[ClassGroup], score: Score, temperature: float, exclude_query: bool
) -> Tensor:
    """1 - mean score of the queries that have a positive, 0 where there is none.

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
    for chunk in class_chunks(groups, matrix, pairwise=True):
        if chunk.size > 1:
            total += _score_chunk(matrix, chunk, score, temperature, exclude_query)
        else:
            matrix[chunk.rows].zero_()
    matrix.mul_(-1 / (max(num_queries, 1) * temperature))
    return 1 - total / num_queries if num_queries else total


def _score_chunk(
    matrix: Tensor, chunk: ClassGroup, score: Score, temperature: float, exclude_query: bool
) -> Tensor:
    """Sum of the scores of a chunk's queries; overwrites their rows with its gradient, times the temperature."""
    m, n = chunk.num_classes, chunk.size
    pairs = others(n, matrix.device)
    rows, block = matrix[chunk.rows].div_(temperature), class_blocks(matrix, chunk)
    positives = block[:, pairs].view(m, n, n - 1, 1)
    if exclude_query:
        block.masked_fill_(~pairs, -torch.inf)
    ahead = (rows.view(m, n, 1, -1) - positives).sigmoid_()
    # Row (q, i) of own has one column for each image of the class; a positive is no rival of itself.
    own = own_columns(ahead, chunk)
    own.masked_fill_(
        torch.eye(n, dtype=torch.bool, device=matrix.device).expand(n, n, n)[pairs].view(n, n - 1, n), 0
    )
    total, by_all, by_own = _score_gradient(score, ahead.sum(3), own.sum(3))
    slopes = ahead.addcmul_(ahead, ahead, value=-1)
    own_slopes = own * by_own.unsqueeze(3)
    at_positives = by_all * slopes.sum(3) + own_slopes.sum(3)
    torch.matmul(by_all.view(m * n, 1, n - 1), slopes.view(m * n, n - 1, -1), out=rows.unsqueeze(1))
    block += own_slopes.sum(2)
    block[:, pairs] -= at_positives.view(m, -1)
    return total


def _score_gradient(score: Score, sums: Tensor, own_sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of the scores and its gradient with respect to both sums."""
    with torch.enable_grad():
        inputs = (sums.requires_grad_(), own_sums.requires_grad_())
        total = score(*inputs).sum()
        gradients = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
    # Far from the top recall's slope underflows; arithmetic on subnormal numbers takes 5 times as long.
    smallest = torch.finfo(sums.dtype).tiny * 1.0e10
    by_all, by_own = (gradient.masked_fill_(gradient.abs() < smallest, 0) for gradient in gradients)
    return total.detach(), by_all, by_own

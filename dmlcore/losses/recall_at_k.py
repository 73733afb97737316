"""Recall@k surrogate loss (RS@k): smooth ranks, smooth counts of the positives ranked within k."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from dmlcore.losses.base import MetricLoss, check_choice, check_number
from dmlcore.losses.pairs import ClassGroup, pair_kernel
from dmlcore.losses.pairwise import pairwise_loss
from dmlcore.losses.smooth_ranks import smooth_rank_loss


class RecallAtK(MetricLoss):
    """One minus the smooth recall at several k, of every image as a query against its batch.

    L = 1 - mean over queries q and over k of min(sum_{i in P_q} sigmoid((k - rank_q(i)) / t), k) / min(k, #P_q),
    rank_q(i) = 1 + sum_{j != i} sigmoid((s_qj - s_qi) / temperature).

    Args:
        ks: the ranks k, each at least 1.
        temperature: of the ranks, above 0.
        recall_temperature: t, above 0.
        exclude_query: False, as in the authors' code: j runs over the query too, which adds 1 to every rank.

    Raises:
        ValueError: a parameter is out of its range.

    Reference: Patel, Tolias, Matas, "Recall@k Surrogate Loss with Large Batches and Similarity Mixup", CVPR 2022,
    eq. 4 to 7; the cap at k is in the authors' code.

    Edge case: a query without a positive is left out; none left -> 0 with zero gradient.
    """

    takes_host_labels = True

    def __init__(
        self,
        ks: Sequence[int] = (1, 2, 4, 8, 16),
        temperature: float = 0.01,
        recall_temperature: float = 1.0,
        exclude_query: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(ks, Sequence) or isinstance(ks, str) or not ks:
            raise ValueError(f"`recall_at_k.ks` must be a list of ranks, got {ks!r}; write it as [1, 2, 4]")
        for k in ks:
            check_number("recall_at_k.ks", k, low=1, whole=True)
        self.temperature = check_number("recall_at_k.temperature", temperature, low=0, open_low=True)
        self.recall_temperature = check_number(
            "recall_at_k.recall_temperature", recall_temperature, low=0, open_low=True
        )
        self.exclude_query = check_choice("recall_at_k.exclude_query", exclude_query, (False, True))
        self.ks = tuple(ks)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        numbers = (self.temperature, self.recall_temperature, float(self.exclude_query), *self.ks)
        return pairwise_loss(embeddings, labels, recall_at_k, *numbers)


@pair_kernel
def recall_at_k(
    matrix: Tensor,
    groups: list[ClassGroup],
    temperature: float,
    recall_temperature: float,
    exclude_query: float,
    *ks: float,
) -> Tensor:
    """Compute the loss of [B, B] cosine similarities sorted by class, overwritten with the gradient."""
    score = partial(smooth_recall, ks=ks, temperature=recall_temperature)
    return smooth_rank_loss(matrix, groups, score, temperature, bool(exclude_query))


def smooth_recall(
    ahead: Tensor, own_ahead: Tensor, ks: Sequence[float], temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Average a query's smooth recall over ks: numbers of rivals ahead [m, q, positives] -> [m, q], gradients."""
    limits = torch.stack(
        [ahead.new_full((), k) for k in ks]
    )  # a list would be copied to a GPU, and waited for
    within = torch.sigmoid((limits - 1 - ahead.unsqueeze(3)) / temperature)
    hits, shares = within.sum(dim=2), limits.clamp(max=ahead.shape[2]) * len(ks)
    slopes = within * (1 - within) * ((hits < limits) / (-temperature * shares)).unsqueeze(2)
    return (hits.minimum(limits) / shares).sum(dim=2), slopes.sum(dim=3), torch.zeros_like(own_ahead)

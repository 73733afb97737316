"""Supervised contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor

from dmlcore.losses.base import MetricLoss, check_number
from dmlcore.losses.chosen_pairs import ChosenPairs, log_sum_exp, mean_where
from dmlcore.losses.pairs import (
    ClassGroup,
    class_blocks,
    class_chunks,
    off_diagonal_mask,
    other_columns,
    pair_kernel,
)
from dmlcore.losses.pairwise import pairwise_loss


class SupCon(MetricLoss):
    """Softmax over the rest of the batch, averaged over the log-probabilities of the positives.

    L = mean over anchors of -(1/#P) sum_{p in P} log(e^{s_p / t} / sum_{a != anchor} e^{s_a / t}).

    Args:
        temperature: t, above 0.

    Raises:
        ValueError: a parameter is out of its range.

    Reference: Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan, "Supervised Contrastive Learning",
    NeurIPS 2020, eq. 2 (L_out).

    Edge case: an anchor without a positive is left out; none left -> 0 with zero gradient.
    """

    takes_host_labels = True

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = check_number("supcon.temperature", temperature, low=0, open_low=True)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return pairwise_loss(embeddings, labels, supcon, self.temperature)

    def compute_pairs(self, vectors: Tensor, references: Tensor, pairs: ChosenPairs) -> Tensor:
        logits = vectors @ references.T / self.temperature
        positives = pairs.positives > 0
        compared = positives | (pairs.negatives > 0)
        used = positives.any(dim=1) & (compared.sum(dim=1) > 1)  # one positive alone is compared with nothing
        log_sums = log_sum_exp(logits, compared, used)
        own = torch.where(positives & used.unsqueeze(1), log_sums.unsqueeze(1) - logits, 0).sum(dim=1)
        return mean_where(own / positives.sum(dim=1).clamp(min=1), used.to(logits.dtype))


@pair_kernel
def supcon(matrix: Tensor, groups: list[ClassGroup], temperature: float) -> Tensor:
    """Compute the loss of [B, B] cosine similarities sorted by class, overwritten with the gradient."""
    num_anchors = max(sum(group.num_classes * group.size for group in groups if group.size > 1), 1)
    matrix.div_(temperature).fill_diagonal_(-torch.inf)
    total = matrix.new_zeros(())
    for chunk in class_chunks(groups, matrix):
        rows, block = matrix[chunk.rows], class_blocks(matrix, chunk)
        if chunk.size == 1:
            rows.zero_()
            continue
        pairs = off_diagonal_mask(chunk.size, matrix.device)
        images, others = other_columns(chunk.size, slice(None), matrix.device)
        log_sums = torch.logsumexp(rows, dim=1, keepdim=True)
        total += log_sums.sum() - block[:, images, others].sum() / (chunk.size - 1)
        rows.sub_(log_sums).exp_()
        block.sub_(pairs.to(block.dtype) / (chunk.size - 1))
    matrix.div_(num_anchors * temperature)
    return total / num_anchors

"""Multi-similarity loss with its pair mining."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dmlcore.losses.base import MetricLoss, check_number
from dmlcore.losses.chosen_pairs import ChosenPairs
from dmlcore.losses.pairs import ClassGroup, class_blocks, class_chunks, off_diagonal_mask, pair_kernel
from dmlcore.losses.pairwise import pairwise_loss


class MultiSimilarity(MetricLoss):
    """Soft hinges over the mined positives and negatives of each anchor.

    L = mean over all B anchors of
        1/a log(1 + sum_{mined p} e^{-a (s_p - l)}) + 1/b log(1 + sum_{mined n} e^{b (s_n - l)});
    mined: positives with s_p < max s_n + eps, negatives with s_n > min s_p - eps.

    Args:
        alpha: a, above 0.
        beta: b, above 0 (50 in the paper, 40 in the authors' code).
        base: l, in -1..1.
        epsilon: eps, at least 0.

    Raises:
        ValueError: a parameter is out of its range.

    Reference: Wang, Han, Huang, Dong, Scott, "Multi-Similarity Loss with General Pair Weighting for Deep Metric
    Learning", CVPR 2019, eq. 7, 8 (mining) and 13.

    Edge case: an anchor without positives or without negatives has no mined pair: it counts with 0.
    """

    takes_host_labels = True

    def __init__(
        self, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, epsilon: float = 0.1
    ) -> None:
        super().__init__()
        self.alpha = check_number("multi_similarity.alpha", alpha, low=0, open_low=True)
        self.beta = check_number("multi_similarity.beta", beta, low=0, open_low=True)
        self.base = check_number("multi_similarity.base", base, low=-1, high=1)
        self.epsilon = check_number("multi_similarity.epsilon", epsilon, low=0)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        numbers = (self.alpha, self.beta, self.base, self.epsilon)
        return pairwise_loss(embeddings, labels, multi_similarity, *numbers)

    def compute_pairs(self, vectors: Tensor, references: Tensor, pairs: ChosenPairs) -> Tensor:
        similarities = vectors @ references.T
        positives, negatives = pairs.positives > 0, pairs.negatives > 0
        if not pairs.mined:
            hardest = similarities.masked_fill(~negatives, -torch.inf).amax(dim=1, keepdim=True)
            threshold = similarities.masked_fill(~positives, torch.inf).amin(dim=1, keepdim=True)
            positives = positives & (similarities < hardest + self.epsilon)
            negatives = negatives & (similarities > threshold - self.epsilon)
        pull = _soft_hinges(similarities, positives, -self.alpha, self.base)
        return (pull + _soft_hinges(similarities, negatives, self.beta, self.base)).mean()


@pair_kernel
def multi_similarity(
    matrix: Tensor, groups: list[ClassGroup], alpha: float, beta: float, base: float, epsilon: float
) -> Tensor:
    """Compute the loss of [B, B] cosine similarities sorted by class, overwritten with the gradient."""
    total = matrix.new_zeros(())
    for chunk in class_chunks(groups, matrix):
        rows = torch.unflatten(matrix[chunk.rows], 0, (chunk.num_classes, chunk.size))
        block = class_blocks(matrix, chunk)
        positives = block.masked_fill(~off_diagonal_mask(chunk.size, matrix.device), torch.inf)
        block.fill_(-torch.inf)
        hardest_negative = rows.amax(dim=2, keepdim=True)
        kept = positives < hardest_negative + epsilon
        threshold = positives.amin(dim=2, keepdim=True) - epsilon
        rows.masked_fill_(rows <= threshold, -torch.inf)
        positives.masked_fill_(~kept, torch.inf)
        total += _soft_hinge(rows, beta, base) + _soft_hinge(positives, -alpha, base)
        block.copy_(positives)
    return total / len(matrix.div_(len(matrix)))


def _soft_hinge(similarities: Tensor, scale: float, base: float) -> Tensor:
    """Sum over the rows log(1 + sum e^{scale (s - base)}) / |scale|; overwrites s with the gradient."""
    logits = similarities.sub_(base).mul_(scale)
    shift = logits.amax(dim=-1, keepdim=True).clamp_(min=0)
    weights = logits.sub_(shift).exp_()
    sums = weights.sum(dim=-1, keepdim=True) + (-shift).exp()
    weights.div_(sums if scale > 0 else -sums)
    return (sums.log() + shift).sum() / abs(scale)


def _soft_hinges(similarities: Tensor, mask: Tensor, scale: float, base: float) -> Tensor:
    """Compute log(1 + sum e^{scale (s - base)}) / |scale| [B] over what each row's mask holds."""
    logits = (scale * (similarities - base)).masked_fill(~mask, -torch.inf)
    return torch.logsumexp(functional.pad(logits, (0, 1)), dim=1) / abs(scale)  # the column of zeros is the 1

"""Unified threshold loss (USS): one learned threshold for all pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmlcore.losses.base import MetricLoss, check_number, normalize
from dmlcore.losses.chosen_pairs import ChosenPairs, mean_where


class UnifiedThreshold(MetricLoss):
    """Push positives above and negatives below one learned similarity, b / g: the natural rival of TCM.

    L = mean over ordered positive pairs of log(1 + e^{-g s_p + b})
        + mean over anchors of sum over their negatives of log(1 + e^{g s_n - b}).

    Args:
        num_classes: sets where b starts, log(10 num_classes), as in the authors' unified cross-entropy.
        gamma: g, above 0.
        weight: factor of the whole, at least 0.

    Raises:
        ValueError: a parameter is out of its range.

    Reference: Li, Zhang, Zhou, Yang, Xu, Jia, "UniTSFace: Unified Threshold Integrated Sample-to-Sample Loss for Face
    Recognition", NeurIPS 2023, the USS loss.

    Edge case: no positive (negative) pair -> the first (second) part is 0.
    """

    def __init__(self, num_classes: int, gamma: float = 64.0, weight: float = 1.0) -> None:
        super().__init__()
        check_number("unified_threshold.num_classes", num_classes, low=1, whole=True)
        self.gamma = check_number("unified_threshold.gamma", gamma, low=0, open_low=True)
        self.weight = check_number("unified_threshold.weight", weight, low=0)
        self.bias = nn.Parameter(torch.tensor(math.log(10 * num_classes)))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        vectors = normalize(embeddings)
        return self.weight * unified_threshold(
            vectors @ vectors.T, labels, self.gamma, self.bias.to(vectors.dtype)
        )

    def compute_pairs(self, vectors: Tensor, references: Tensor, pairs: ChosenPairs) -> Tensor:
        logits = self.gamma * (vectors @ references.T) - self.bias.to(vectors.dtype)
        negatives = (functional.softplus(logits) * pairs.negatives).sum() / len(vectors)
        return self.weight * (mean_where(functional.softplus(-logits), pairs.positives) + negatives)


def unified_threshold(similarities: Tensor, labels: Tensor, gamma: float, bias: Tensor) -> Tensor:
    """Compute the USS loss of [B, B] cosine similarities, labels [B] and the learned scalar b."""
    same = labels.unsqueeze(1) == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    sign = 1 - 2 * same.to(similarities.dtype)
    terms = functional.softplus(sign * (gamma * similarities - bias))
    positives = torch.where(positive, terms, 0).sum() / positive.sum().clamp(min=1)
    return positives + torch.where(same, 0, terms).sum() / len(labels)

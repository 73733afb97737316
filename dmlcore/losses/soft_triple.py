"""SoftTriple loss: several centres a class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dmlcore.losses.base import MetricLoss, check_number, normalize
from dmlcore.losses.softmax import add_at_own, class_indices


class SoftTriple(MetricLoss):
    """Cross-entropy of relaxed similarities to the centres of each class.

    S_c = sum_k softmax_k(s_ck / gamma) s_ck,
    L = mean CE(la (S - delta [y])) + tau sum_c sum_{k<l} sqrt(2 + 1e-5 - 2 w_ck w_cl) / (C K (K - 1)).

    Args:
        num_classes: C.
        embedding_dim: D.
        scale: la, above 0.
        gamma: above 0.
        margin: delta, at least 0.
        regularization: tau, at least 0.
        centers_per_class: K, at least 1.

    Raises:
        ValueError: a parameter is out of its range, or a label has no centre.

    Reference: Qian, Shang, Sun, Hu, Li, Jin, "SoftTriple Loss: Deep Metric Learning Without Triplet Sampling", ICCV
    2019, eq. 6 to 9.

    Edge case: one centre a class -> no second term.
    """

    takes_host_labels = True

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 20.0,
        gamma: float = 0.1,
        margin: float = 0.01,
        regularization: float = 0.2,
        centers_per_class: int = 10,
    ) -> None:
        super().__init__()
        check_number("soft_triple.num_classes", num_classes, low=1, whole=True)
        check_number("soft_triple.embedding_dim", embedding_dim, low=1, whole=True)
        self.scale = check_number("soft_triple.scale", scale, low=0, open_low=True)
        self.gamma = check_number("soft_triple.gamma", gamma, low=0, open_low=True)
        self.margin = check_number("soft_triple.margin", margin, low=0)
        self.regularization = check_number("soft_triple.regularization", regularization, low=0)
        check_number("soft_triple.centers_per_class", centers_per_class, low=1, whole=True)
        self.centers = nn.Parameter(torch.empty(num_classes, centers_per_class, embedding_dim))
        nn.init.kaiming_uniform_(self.centers.view(-1, embedding_dim).T, a=math.sqrt(5))  # as the authors do

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        labels = class_indices(labels, len(self.centers), embeddings.device)
        centers = normalize(self.centers.to(embeddings.dtype).flatten(0, 1)).view_as(self.centers)
        cosines = torch.einsum("bd,ckd->bck", normalize(embeddings), centers)
        similarities = (torch.softmax(cosines / self.gamma, dim=2) * cosines).sum(dim=2)
        logits = self.scale * add_at_own(similarities, labels, -self.margin)
        loss = nn.functional.cross_entropy(logits, labels)
        return loss + self.regularization * center_spread(centers)


def center_spread(centers: Tensor) -> Tensor:
    """Compute the mean distance between the centres of a class, halved: [C, K, D], normalised -> scalar."""
    num_classes, per_class, _ = centers.shape
    if per_class == 1:
        return centers.new_zeros(())
    first, second = torch.triu_indices(per_class, per_class, offset=1, device=centers.device)
    products = (centers @ centers.mT)[:, first, second]
    return (2 + 1.0e-5 - 2 * products).sqrt().sum() / (num_classes * per_class * (per_class - 1))

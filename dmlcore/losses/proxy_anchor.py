"""Proxy-anchor loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dmlcore.losses.base import MetricLoss, check_number, normalize
from dmlcore.losses.softmax import class_indices


class ProxyAnchor(MetricLoss):
    """One learned proxy a class as the anchor: pulls its class's hard positives, pushes hard negatives.

    L = (1/#P+) sum_{p in P+} log(1 + sum_{x in X_p+} e^{-a (s(x, p) - delta)})
        + (1/#P) sum_{p in P} log(1 + sum_{x in X_p-} e^{a (s(x, p) + delta)}),
    P+ the proxies with a positive in the batch.

    Args:
        num_classes: proxies [num_classes, embedding_dim], drawn from torch's generator.
        embedding_dim: D.
        alpha: a, above 0.
        margin: delta.

    Raises:
        ValueError: a parameter is out of its range, or a label has no proxy.

    Reference: Kim, Kim, Cho, Kwak, "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020, eq. 4. The authors train
    the proxies at 100 times the learning rate of the embedder.

    Edge case: a proxy without positives (negatives) in the batch has 0 in the first (second) sum.
    """

    takes_host_labels = True

    def __init__(
        self, num_classes: int, embedding_dim: int, alpha: float = 32.0, margin: float = 0.1
    ) -> None:
        super().__init__()
        check_number("proxy_anchor.num_classes", num_classes, low=1, whole=True)
        check_number("proxy_anchor.embedding_dim", embedding_dim, low=1, whole=True)
        self.alpha = check_number("proxy_anchor.alpha", alpha, low=0, open_low=True)
        self.margin = check_number("proxy_anchor.margin", margin, low=-1, high=1)
        self.proxies = nn.Parameter(torch.empty(num_classes, embedding_dim))
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")  # as the authors do

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        labels = class_indices(labels, len(self.proxies), embeddings.device)
        proxies = normalize(self.proxies.to(embeddings.dtype))
        return proxy_anchor(normalize(embeddings) @ proxies.T, labels, self.alpha, self.margin)


def proxy_anchor(similarities: Tensor, labels: Tensor, alpha: float, margin: float) -> Tensor:
    """Compute the proxy-anchor loss of [B, C] cosine similarities to the proxies and labels [B]."""
    own = labels.unsqueeze(1) == torch.arange(similarities.shape[1], device=labels.device)
    positives = log1p_sum_exp((-alpha * (similarities - margin)).masked_fill(~own, -torch.inf))
    negatives = log1p_sum_exp((alpha * (similarities + margin)).masked_fill(own, -torch.inf))
    return positives.sum() / own.any(dim=0).sum() + negatives.mean()


def log1p_sum_exp(logits: Tensor) -> Tensor:
    """log(1 + sum e^x) down each column of [B, C], without overflow; -inf counts for nothing."""
    shift = logits.detach().amax(dim=0).clamp(min=0)
    return ((logits - shift).exp().sum(dim=0) + (-shift).exp()).log() + shift

"""Proxy-based graph metric learning (ProxyGML)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmlcore.losses.base import MetricLoss, check_choice, check_number, normalize
from dmlcore.losses.softmax import class_indices

SMALLEST_SUM = 1.0e-8
SMALLEST_PROBABILITY = 1.0e-20  # as in the authors' code


class ProxyGML(MetricLoss):
    """Class probabilities from the few sub-proxies most similar to an embedding.

    Of each row of S^p = x P^T the K = ceil(r C N) largest are kept, the N of its own class always among them;
    S [B, C] = kept cosines summed by class; P = M e^S / (sum M e^S + 1e-8), M = [S != 0] not differentiated;
    L = -mean log P_y + lambda CE((P P^T) Y, own class), the second term over all sub-proxies.

    Args:
        num_classes: C.
        embedding_dim: D.
        proxies_per_class: N, at least 1 (12 on CUB and Cars, 1 on Stanford Online Products).
        ratio: r, above 0, at most 1.
        regularization: lambda, at least 0 (0 on Stanford Online Products).
        form: `softmax`, or `bce` for -mean_i sum_j M_ij [y_ij log P_ij + (1 - y_ij) log(1 - P_ij)] as first term.

    Raises:
        ValueError: a parameter is out of its range, or a label has no proxy.

    Reference: Zhu, Yang, Deng, Zhang, "Fewer is More: A Deep Graph Metric Learning Perspective Using Fewer Proxies",
    NeurIPS 2020, eq. 3 to 9; the top K as in the authors' code. They train the proxies at a rate of 0.03 (0.3 on SOP).

    Edge case: K is at least N, so that an own-class sub-proxy is never dropped.
    """

    takes_host_labels = True

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        proxies_per_class: int = 12,
        ratio: float = 0.05,
        regularization: float = 0.3,
        form: str = "softmax",
    ) -> None:
        super().__init__()
        self.num_classes = check_number("proxy_gml.num_classes", num_classes, low=1, whole=True)
        check_number("proxy_gml.embedding_dim", embedding_dim, low=1, whole=True)
        check_number("proxy_gml.proxies_per_class", proxies_per_class, low=1, whole=True)
        self.ratio = check_number("proxy_gml.ratio", ratio, low=0, high=1, open_low=True)
        self.regularization = check_number("proxy_gml.regularization", regularization, low=0)
        self.form = check_choice("proxy_gml.form", form, ("softmax", "bce"))
        self.proxies = nn.Parameter(torch.empty(num_classes, proxies_per_class, embedding_dim))
        nn.init.kaiming_uniform_(self.proxies.view(-1, embedding_dim).T, a=math.sqrt(5))  # as the authors do

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        labels = class_indices(labels, self.num_classes, embeddings.device)
        proxies = normalize(self.proxies.to(embeddings.dtype).flatten(0, 1)).view_as(self.proxies)
        similarities = torch.einsum("bd,cnd->bcn", normalize(embeddings), proxies)
        probabilities, kept = graph_probabilities(similarities, labels, self.ratio)
        term = _softmax_term if self.form == "softmax" else _binary_term
        loss = term(probabilities, kept, labels)
        return loss + self.regularization * _proxy_term(proxies) if self.regularization else loss


def graph_probabilities(similarities: Tensor, labels: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Compute the masked softmax of the kept similarities [B, C, N]: probabilities and mask, both [B, C]."""
    batch, num_classes, per_class = similarities.shape
    number = max(math.ceil(ratio * num_classes * per_class), per_class)
    own = functional.one_hot(labels, num_classes).unsqueeze(2)
    order = (similarities.detach() + 1000 * own).flatten(1).topk(number, dim=1).indices
    chosen = torch.zeros(batch, num_classes * per_class, dtype=torch.bool, device=labels.device)
    sums = similarities.mul(chosen.scatter_(1, order, True).view_as(similarities)).sum(dim=2)
    kept = sums != 0
    weights = sums.exp() * kept
    return weights / (weights.sum(dim=1, keepdim=True) + SMALLEST_SUM), kept


def _softmax_term(probabilities: Tensor, kept: Tensor, labels: Tensor) -> Tensor:
    own = probabilities.gather(1, labels.unsqueeze(1))
    return -(own + SMALLEST_PROBABILITY).log().mean()


def _binary_term(probabilities: Tensor, kept: Tensor, labels: Tensor) -> Tensor:
    own = functional.one_hot(labels, probabilities.shape[1]).bool()
    likelihoods = torch.where(own, probabilities, 1 - probabilities)
    smallest = torch.finfo(probabilities.dtype).eps
    return -(likelihoods.clamp(min=smallest).log() * kept).sum(dim=1).mean()


def _proxy_term(proxies: Tensor) -> Tensor:
    """Compute the cross-entropy of each sub-proxy [C, N, D] over its summed cosines to each class's sub-proxies."""
    num_classes, per_class, _ = proxies.shape
    logits = proxies.flatten(0, 1) @ proxies.sum(dim=1).T
    classes = torch.arange(num_classes, device=proxies.device).repeat_interleave(per_class)
    return functional.cross_entropy(logits, classes)

"""What the softmax losses over one proxy a class share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dmlcore.losses.base import MetricLoss, check_number, normalize


class ProxySoftmax(MetricLoss):
    """Mean cross-entropy of logits made of the cosines to one learned proxy a class.

    Args:
        num_classes: proxies [num_classes, embedding_dim], drawn from torch's generator, directions uniform.
        embedding_dim: D.
    """

    takes_host_labels = True

    def __init__(self, num_classes: int, embedding_dim: int) -> None:
        super().__init__()
        check_number("num_classes", num_classes, low=1, whole=True)
        check_number("embedding_dim", embedding_dim, low=1, whole=True)
        # Length about 1: with Adam the proxies then turn about as fast as the learning rate says.
        self.proxies = nn.Parameter(torch.randn(num_classes, embedding_dim) / embedding_dim**0.5)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        labels = class_indices(labels, len(self.proxies), embeddings.device)
        proxies = normalize(self.proxies.to(embeddings.dtype))
        logits = self.logits(normalize(embeddings) @ proxies.T, labels)
        return nn.functional.cross_entropy(logits, labels)

    def logits(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """Turn cosines [B, C] and labels [B] into logits [B, C]."""
        raise NotImplementedError


def add_at_own(values: Tensor, labels: Tensor, addend: Tensor | float) -> Tensor:
    """Add `addend` ([B, C] or a number) to values [B, C] at each row's own class."""
    own = labels.unsqueeze(1) == torch.arange(values.shape[1], device=values.device)
    return torch.where(own, values + addend, values)


def class_indices(labels: Tensor, num_classes: int, device: torch.device) -> Tensor:
    """Return labels as int64 on `device`; refuse those that have no proxy, which must be in 0..num_classes - 1."""
    rule = f"labels must be in 0..{num_classes - 1} (num_classes {num_classes})"
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = (int(end) for end in labels.aminmax())
        if low < 0 or high >= num_classes:
            raise ValueError(f"{rule}, got {low}..{high}; re-index the training classes from 0")
    else:  # without waiting for a GPU, which reports it later
        torch._assert_async(((labels >= 0) & (labels < num_classes)).all(), rule)
    return labels.to(device, torch.long, non_blocking=True)

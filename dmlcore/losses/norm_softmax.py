"""Normalised softmax loss."""

from __future__ import annotations

from torch import Tensor

from dmlcore.losses.base import check_number
from dmlcore.losses.softmax import ProxySoftmax


class NormSoftmax(ProxySoftmax):
    """Cross-entropy of cosines to the class proxies over a temperature.

    L = mean CE(x w^T / T).

    Args:
        num_classes: C.
        embedding_dim: D.
        temperature: T, above 0.

    Raises:
        ValueError: a parameter is out of its range, or a label has no proxy.

    Reference: Zhai, Wu, "Classification is a Strong Baseline for Deep Metric Learning", BMVC 2019, eq. 3.

    Edge case: one class -> 0 with zero gradient.
    """

    def __init__(self, num_classes: int, embedding_dim: int, temperature: float = 0.05) -> None:
        super().__init__(num_classes, embedding_dim)
        self.temperature = check_number("norm_softmax.temperature", temperature, low=0, open_low=True)

    def logits(self, cosines: Tensor, labels: Tensor) -> Tensor:
        return cosines / self.temperature

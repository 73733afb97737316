"""ProxyNCA++ loss."""

from __future__ import annotations

from torch import Tensor

from dmlcore.losses.base import check_number
from dmlcore.losses.softmax import ProxySoftmax


class ProxyNCAPlusPlus(ProxySoftmax):
    """Cross-entropy of the negative squared distances to the class proxies, all of length sqrt(scale).

    L = mean CE(-|| sqrt(scale) x - sqrt(scale) p ||^2), the own proxy in the denominator too.

    Args:
        num_classes: C.
        embedding_dim: D.
        scale: above 0; 9 is a length of 3.

    Raises:
        ValueError: a parameter is out of its range, or a label has no proxy.

    Reference: Teh, DeVries, Taylor, "ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood Component Analysis",
    ECCV 2020, eq. 5 and section 3.3.

    Edge case: one class -> 0 with zero gradient.
    """

    def __init__(self, num_classes: int, embedding_dim: int, scale: float = 9.0) -> None:
        super().__init__(num_classes, embedding_dim)
        self.scale = check_number("proxy_nca_pp.scale", scale, low=0, open_low=True)

    def logits(self, cosines: Tensor, labels: Tensor) -> Tensor:
        return 2 * self.scale * (cosines - 1)

"""CosFace: an additive cosine margin."""

from __future__ import annotations

from torch import Tensor

from dmlcore.losses.base import check_number
from dmlcore.losses.softmax import ProxySoftmax, add_at_own


class CosFace(ProxySoftmax):
    """Cross-entropy of scaled cosines, the one to the own proxy lowered by a margin.

    L = mean CE(s cos(theta)), with s (cos(theta_y) - m) at the own class y.

    Args:
        num_classes: C.
        embedding_dim: D.
        scale: s, above 0.
        margin: m, in 0..2.

    Raises:
        ValueError: a parameter is out of its range, or a label has no proxy.

    Reference: Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu, "CosFace: Large Margin Cosine Loss for Deep Face Recognition",
    CVPR 2018, eq. 4.

    Edge case: one class -> 0 with zero gradient.
    """

    def __init__(
        self, num_classes: int, embedding_dim: int, scale: float = 64.0, margin: float = 0.35
    ) -> None:
        super().__init__(num_classes, embedding_dim)
        self.scale = check_number("cosface.scale", scale, low=0, open_low=True)
        self.margin = check_number("cosface.margin", margin, low=0, high=2)

    def logits(self, cosines: Tensor, labels: Tensor) -> Tensor:
        return self.scale * add_at_own(cosines, labels, -self.margin)

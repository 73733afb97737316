"""ArcFace: an additive angular margin."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dmlcore.losses.base import check_number
from dmlcore.losses.softmax import ProxySoftmax, add_at_own


class ArcFace(ProxySoftmax):
    """Cross-entropy of scaled cosines, the angle to the own proxy widened by a margin.

    L = mean CE(s cos(theta)), with cos(theta_y + m) at the own class y.

    Args:
        num_classes: C.
        embedding_dim: D.
        scale: s, above 0.
        margin: m, in radians, 0..pi.

    Raises:
        ValueError: a parameter is out of its range, or a label has no proxy.

    Reference: Deng, Guo, Xue, Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019,
    eq. 3.

    Edge cases: where theta_y + m would pass pi, cos(theta_y) - m sin(m) keeps the logit falling, as in the authors'
    code; at an angle of 0 or pi, where the sine has no slope, the margin adds no gradient.
    """

    def __init__(
        self, num_classes: int, embedding_dim: int, scale: float = 64.0, margin: float = 0.5
    ) -> None:
        super().__init__(num_classes, embedding_dim)
        self.scale = check_number("arcface.scale", scale, low=0, open_low=True)
        self.margin = check_number("arcface.margin", margin, low=0, high=math.pi)

    def logits(self, cosines: Tensor, labels: Tensor) -> Tensor:
        smallest = torch.finfo(cosines.dtype).eps
        sines = (1 - cosines.square()).clamp(min=smallest).sqrt()
        widened = cosines * (math.cos(self.margin) - 1) - sines * math.sin(self.margin)
        beyond = cosines < -math.cos(self.margin)
        addend = torch.where(beyond, -self.margin * math.sin(self.margin), widened)
        return self.scale * add_at_own(cosines, labels, addend)

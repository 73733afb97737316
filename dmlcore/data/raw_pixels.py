"""Raw pixels as an embedding: what retrieval reaches before anything is learned."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from dmlcore.data.transforms import to_float

SIDE = 32
"""Larger images are averaged down to this side: the baseline must fit in memory at any image size."""


def raw_pixel_embeddings(images: npt.NDArray[np.uint8], block: int = 1024) -> Tensor:
    """Pixels less their mean over the images.

    Args:
        images: [N, H, W, C], uint8.
        block: images worked on at once.

    Returns:
        [N, D], D = C x min(H, 32) x min(W, 32), float32.
    """
    side = (min(images.shape[1], SIDE), min(images.shape[2], SIDE))
    blocks = [to_float(images[start : start + block]) for start in range(0, len(images), block)]
    pixels = torch.cat([adaptive_avg_pool2d(batch, side).flatten(1) for batch in blocks])
    return pixels - pixels.mean(dim=0)

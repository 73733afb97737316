"""Raw pixels as an embedding: what retrieval reaches before anything is learned."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from dmlcore.config.trial import EvaluationConfig
from dmlcore.data.dataset import Split
from dmlcore.data.images import Images, Pixels
from dmlcore.data.transforms import to_float
from dmlcore.metrics.evaluation import evaluate

SIDE = 32
"""Larger images are averaged down to this side: the baseline must fit in memory at any image size."""


BLOCK = 64
"""Images at once: one by one, the calls cost more than the work."""


def raw_pixel_embeddings(images: Images) -> Tensor:
    """Pixels of the centred squares less their mean over the images; memory beyond the result: a block of images.

    Args:
        images: N images of C channels and one short side.

    Returns:
        [N, D], D = C x S x S with S = min(32, shortest side of the first image), float32.
    """
    height, width, channels = images.read(0).shape
    side = min(height, width, SIDE)
    embeddings = torch.empty(len(images), channels * side * side)
    for start in range(0, len(images), BLOCK):
        block = range(start, min(start + BLOCK, len(images)))
        squares = to_float(np.stack([_centred_square(images.read(index)) for index in block]))
        embeddings[block.start : block.stop] = adaptive_avg_pool2d(squares, side).flatten(1)
    return embeddings.sub_(embeddings.mean(dim=0))


def _centred_square(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def raw_pixel_metrics(test: Split, config: EvaluationConfig) -> dict[str, float]:
    """Measure the test split's raw pixels as an embedding, under the keys of a trial: `test/...`.

    Where some images are queries, they search the rest.
    """
    queries = test.roles == "query"
    evaluation = evaluate(
        raw_pixel_embeddings(test.images),
        test.labels,
        is_query=queries if queries.any() else None,
        **config.model_dump(exclude={"bootstrap"}),
    )
    return {f"test/{name}": float(value) for name, value in evaluation.metrics.items()}

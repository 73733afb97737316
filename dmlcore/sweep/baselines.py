"""Baselines that need no training: raw pixels, measured once per data set and evaluation code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from dmlcore.config.base import canonical
from dmlcore.config.trial import EvaluationConfig
from dmlcore.core.hashing import json_sha256
from dmlcore.core.io import write_atomically
from dmlcore.core.sealed_json import SealError, check_seal, finite, json_object, sealed
from dmlcore.data.dataset import PreparedDataset, Split
from dmlcore.data.images import Images, Pixels
from dmlcore.data.transforms import to_float
from dmlcore.metrics.evaluation import evaluate
from dmlcore.records import Metrics
from dmlcore.training.code_hash import KEYED_BY_VALUE, code_hashes, library_versions

NOT_MEASURING = (*KEYED_BY_VALUE, "dmlcore.core.io", "dmlcore.core.sealed_json", "dmlcore.records")
"""Modules through which no pixel runs: they store the metrics."""
SIDE = 32
"""Larger images are averaged down to this side: the baseline must fit in memory at any image size."""
BLOCK = 64
"""Images at once: one by one, the calls cost more than the work."""


def raw_pixel_baseline(data: PreparedDataset, cache: Path) -> Metrics:
    """Return the metrics `test/...` of the raw pixels of a data set.

    They are read from `cache` where pixels, code and library versions are the same.

    Args:
        data: the data set.
        cache: folder with one small file per data set; a file that cannot be read or was changed is replaced.
    """
    settings = EvaluationConfig()
    key = json_sha256(
        {
            "data": data.data_hash,
            "evaluation": canonical(settings),
            "code": code_hashes(frozenset({__name__}), NOT_MEASURING),
            # No train key says it here: torch reads the pixels and multiplies, torchvision decodes.
            "versions": library_versions(),
        }
    )
    file = cache / f"{data.folder.name}.json"
    known = _read(file, key)
    if known is None:
        known = finite(raw_pixel_metrics(data.split("test"), settings))
        write_atomically(file, sealed({"key": key, "metrics": known}))
    return known


def _read(file: Path, key: str) -> Metrics | None:
    try:
        stored = json_object(file.read_bytes())
        check_seal(stored)
        metrics: Metrics = stored["metrics"]
        return metrics if stored["key"] == key else None
    except (OSError, SealError, KeyError):
        return None


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
        groups=test.groups,
        **config.model_dump(exclude={"bootstrap"}),
    )
    return {f"test/{name}": float(value) for name, value in evaluation.metrics.items()}

"""The features of a frozen trunk: each image embedded once, stored in a file that is named by what it was made from.

Shapes: N images of the data set in the manifest's order, F features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dmlcore.config.base import canonical
from dmlcore.config.trial import TrialConfig
from dmlcore.core.hashing import file_sha256
from dmlcore.data.dataset import PreparedDataset
from dmlcore.models import Embedder
from dmlcore.models.weights import local_file
from dmlcore.training.build import build_model
from dmlcore.training.code_hash import KEYED_BY_VALUE, code_hashes, library_versions
from dmlcore.training.loader import ImageLoader, autocast
from dmlcore.training.store import cached_array

NOT_FEATURES = (*KEYED_BY_VALUE, "dmlcore.losses", "dmlcore.training.language", "dmlcore.training.samplers")
"""Modules that `build` and `loader` import for training, through which no feature runs."""


def trunk_features(
    config: TrialConfig, data: PreparedDataset, *, cache: Path, device: torch.device
) -> npt.NDArray[np.float32]:
    """Return the pooled features [N, F] of all images, from the folder `cache` or computed on `device`.

    Raises:
        ValueError: settings under which an image has no fixed features.
    """
    check_frozen(config)
    inputs = feature_inputs(config, data.data_hash)
    return cached_array(cache, inputs, lambda: _compute(config, data, device))


def feature_inputs(config: TrialConfig, data_hash: str) -> dict[str, Any]:
    """Collect all that the features depend on: data, backbone, weights, input, code, library versions."""
    weights = local_file(config.model.backbone.weights)
    return {
        "data": data_hash,
        "backbone": canonical(config.model.backbone),
        "weights": file_sha256(weights) if weights else None,
        # The seed draws the weights of an untrained trunk only.
        "seed": config.seed if config.model.backbone.weights is None else None,
        "pooling": config.model.pooling,
        "channels_last": config.model.channels_last,
        "input": canonical(config.input) if config.input else None,
        "precision": config.train.precision,
        "threads": config.threads,
        "code": code_hashes(frozenset({__name__}), NOT_FEATURES),
        "versions": library_versions(),
    }


def check_frozen(config: TrialConfig) -> None:
    """Refuse settings that would change an image's features from one step to another."""
    if config.model.pooling == "gem":
        raise ValueError(
            "model.trunk frozen needs model.pooling average or token, got gem: its exponent is learned below the head"
        )
    random = config.input is not None and config.input.random_crop is not None
    if random or any(config.train.augmentation.model_dump().values()):
        raise ValueError(
            "model.trunk frozen embeds each image once: train.augmentation and input.random_crop must be off"
        )


def _compute(config: TrialConfig, data: PreparedDataset, device: torch.device) -> npt.NDArray[np.float32]:
    channels = data.split("train").images.channels
    model: Embedder = build_model(config.model, in_channels=channels, seed=config.seed).to(device).eval()
    parts = []
    for name in ("train", "validation", "test"):
        for images in ImageLoader(data.split(name), config, device).evaluation_batches():
            with torch.inference_mode(), autocast(device, config.train.precision):
                parts.append(model.pooled(images).float())
    return torch.cat(parts).cpu().numpy()

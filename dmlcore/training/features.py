"""The features of a frozen trunk: each image embedded once, kept in a file that is named by what it was made from.

Shapes: N images of the data set in the manifest's order, F features.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock

import dmlcore.data
import dmlcore.models
from dmlcore.config.base import canonical
from dmlcore.config.trial import TrialConfig
from dmlcore.core.hashing import file_sha256
from dmlcore.core.io import atomic_write_path
from dmlcore.data.dataset import PreparedDataset
from dmlcore.models import Embedder
from dmlcore.models.weights import local_file
from dmlcore.training.build import build_model
from dmlcore.training.loader import ImageFeed, autocast

DATA_CODE = ("images.py", "inputs.py", "packed.py", "transforms.py")
LIBRARIES = ("timm", "torch", "torchvision")


def trunk_features(
    config: TrialConfig, data: PreparedDataset, *, cache: Path, device: torch.device
) -> npt.NDArray[np.float32]:
    """Pooled features [N, F] of all images, by memory map from the folder `cache`; computed where they are missing.

    Trials that need the same features at once wait for the first of them.

    Raises:
        ValueError: settings under which an image has no features of its own.
    """
    check_frozen(config)
    file = cache / f"{features_key(config, data.data_hash)}.npy"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if not file.is_file():
                _compute(config, data, file, device)
    features: npt.NDArray[np.float32] = np.load(file, mmap_mode="r", allow_pickle=False)
    return features


def features_key(config: TrialConfig, data_hash: str) -> str:
    """Sha256 of all that the features depend on: data, backbone, weights, input, code, library versions."""
    weights = local_file(config.model.backbone.weights)
    parts: dict[str, Any] = {
        "data": data_hash,
        "backbone": canonical(config.model.backbone),
        "weights": file_sha256(weights) if weights else None,
        "seed": config.seed if config.model.backbone.weights is None else None,
        "pooling": config.model.pooling,
        "channels_last": config.model.channels_last,
        "input": canonical(config.input) if config.input else None,
        "precision": config.train.precision,
        "threads": config.threads,
        "code": _code(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _code() -> str:
    models = sorted(Path(dmlcore.models.__path__[0]).glob("*.py"))
    data = [Path(dmlcore.data.__path__[0]) / name for name in DATA_CODE]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in [*models, *data])).hexdigest()


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


def _compute(config: TrialConfig, data: PreparedDataset, file: Path, device: torch.device) -> None:
    channels = data.split("train").images.channels
    model: Embedder = build_model(config.model, in_channels=channels, seed=config.seed).to(device).eval()
    parts = []
    for name in ("train", "validation", "test"):
        for images in ImageFeed(data.split(name), config, device).evaluation():
            with torch.inference_mode(), autocast(device, config.train.precision):
                parts.append(model.pooled(images).float().cpu().numpy())
    with atomic_write_path(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.concatenate(parts), allow_pickle=False)

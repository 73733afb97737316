"""The model of a trial that has been trained: rebuilt from config and stored weights, and run on images.

Shapes: N images of H x W pixels, C channels; D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dmlcore.config.study import load_study
from dmlcore.config.trial import ModelConfig, TrialConfig
from dmlcore.data.dataset import Split
from dmlcore.data.images import Images
from dmlcore.models import Embedder, Head
from dmlcore.records import TrialRecord
from dmlcore.training.build import build_model
from dmlcore.training.loader import ImageLoader, embed
from dmlcore.training.store import TrialStore


def store_of(study: Path, record: TrialRecord) -> TrialStore:
    """Open the files of a finished trial of `study` (an absolute path).

    Raises:
        ValueError: a file is missing or was changed.
    """
    storage = load_study(study / "params.yaml").sweep.storage
    store = TrialStore(study / storage / record.train_key[:16], record.files)
    if not store.matches(record.files):
        raise ValueError(
            f"the files {sorted(record.files)} of trial {record.trial_key} in {store.folder} "
            "are missing or were changed since they were written; run the trial again"
        )
    return store


def trained_embedder(config: TrialConfig, store: TrialStore, *, channels: int) -> Embedder:
    """Rebuild the model that embedded the trial's test images.

    Args:
        config: of the trial.
        store: its files.
        channels: C, of its data set.
    """
    state = store.load("final" if config.train.final else "best")
    if config.model.trunk is None:
        return rebuilt(config.model, state, channels=channels)
    # A trial on a frozen trunk stores its head alone; `build_model` makes the same trunk again.
    model = build_model(config.model, in_channels=channels, seed=config.seed)
    Head(model.normalization, model.projection).load_state_dict(state)
    return model


def rebuilt(config: ModelConfig, state: Mapping[str, Tensor], *, channels: int) -> Embedder:
    """Build the embedder whose whole state is `state`: pretrained weights are neither looked for nor downloaded."""
    backbone = config.backbone.model_copy(update={"weights": None})
    model = build_model(config.model_copy(update={"backbone": backbone}), in_channels=channels, seed=0)
    model.load_state_dict(dict(state))
    return model


def embed_images(model: Embedder, config: TrialConfig, images: Images) -> Tensor:
    """Embed `images`, cropped and scaled as the trial's test images were: `[N, D]` float32, not normalised."""
    device = torch.device("cpu")
    unknown = np.zeros(len(images), dtype=np.int64)
    split = Split(images, unknown, unknown, (), unknown.astype(np.str_))
    return embed(model, ImageLoader(split, config, device), device, config.train.precision)

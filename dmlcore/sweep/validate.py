"""Validation of cells: build every distinct loss and network of a sweep before anything runs."""

from __future__ import annotations

import torch

from dmlcore.config.base import ConfigError
from dmlcore.config.trial import ModelConfig
from dmlcore.models import Embedder
from dmlcore.models.weights import local_file
from dmlcore.sweep.grid import Cell
from dmlcore.training.build import build_model, build_objective
from dmlcore.training.features import check_frozen
from dmlcore.training.gradient_cache import check_chunks


def check_cells(cells: list[Cell]) -> None:
    """Build every distinct loss and backbone of the sweep, on the meta device, which allocates no weights.

    Raises:
        ConfigError: names the cell and what is wrong with it.
    """
    seen: set[str] = set()
    for cell in cells:
        config = cell.config
        objective = repr((config.loss, config.regularizers, config.model.embedding_dim))
        model = repr((config.model, config.input, config.train.chunk_size, config.train.augmentation))
        if {objective, model} <= seen:
            continue
        seen |= {objective, model}
        try:
            build_objective(config, num_classes=2)
            if config.model.trunk == "frozen":
                check_frozen(config)
            local_file(config.model.backbone.weights)
            check_chunks(meta_model(config.model, in_channels=3), config.train.chunk_size)
        except ValueError as error:
            raise ConfigError(f"sweep cell [{cell.name}]: {error}") from error


def meta_model(config: ModelConfig, *, in_channels: int) -> Embedder:
    """Return the network on the meta device: names, shapes and layers of the real one, no memory."""
    backbone = config.backbone.model_copy(update={"weights": None})
    with torch.device("meta"):
        return build_model(config.model_copy(update={"backbone": backbone}), in_channels=in_channels, seed=0)

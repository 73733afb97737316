"""Validation of cells: try every distinct loss and build every network of a sweep before anything runs."""

from __future__ import annotations

import torch

from dmlcore.config.base import ConfigError
from dmlcore.config.trial import ModelConfig, TrialConfig
from dmlcore.models import Embedder
from dmlcore.models.weights import local_file
from dmlcore.sweep.grid import Cell
from dmlcore.training.build import build_model, build_objective
from dmlcore.training.features import check_frozen
from dmlcore.training.gradient_cache import check_chunks
from dmlcore.training.loss_state import LossState

LARGEST_BATCH = 512
"""Embeddings of the two steps: some losses take all triplets, B^3 numbers."""


def check_cells(cells: list[Cell]) -> None:
    """Try every distinct loss, and build every backbone on the meta device, which allocates no weights.

    Raises:
        ConfigError: names the cell and what is wrong with it.
    """
    seen: set[str] = set()
    for cell in cells:
        config = cell.config
        train = config.train
        batch = (train.batch_size, train.images_per_class, train.batch_limit)
        objective = repr((config.loss, config.regularizers, config.model.embedding_dim, batch))
        model = repr((config.model, config.input, config.train.chunk_size, config.train.augmentation))
        if {objective, model} <= seen:
            continue
        seen |= {objective, model}
        try:
            check_objective(config)
            if config.model.trunk == "frozen":
                check_frozen(config)
            local_file(config.model.backbone.weights)
            check_chunks(meta_model(config.model, in_channels=3), config.train.chunk_size)
        except ValueError as error:
            raise ConfigError(f"sweep cell [{cell.name}]: {error}") from error


def check_objective(config: TrialConfig) -> None:
    """Take two steps of the losses on random embeddings: some fail in the second, because of the state that they keep.

    Raises:
        ValueError: a loss cannot be built, fails, or keeps state that no checkpoint can store.
    """
    train = config.train
    size = min(train.batch_size, LARGEST_BATCH)
    labels = torch.arange(size) // train.images_per_class
    objective = build_objective(config, num_classes=max(int(labels[-1]) + 1, 2))
    if train.batch_limit is None:  # else the data set may make the batches smaller
        objective.check_batch_size(train.batch_size)
    state = LossState(objective)
    generator = torch.Generator().manual_seed(0)
    for step in (1, 2):
        embeddings = torch.randn(size, config.model.embedding_dim, generator=generator).requires_grad_()
        try:
            torch.stack(list(objective(embeddings, labels).values())).sum().backward()
        except Exception as error:  # whatever a user's loss raises
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            raise ValueError(
                f"the loss {config.loss.name!r} fails in step {step} of training: {reason}"
            ) from error
    state.save()


def meta_model(config: ModelConfig, *, in_channels: int) -> Embedder:
    """Return the network on the meta device: names, shapes and layers of the real one, no memory."""
    backbone = config.backbone.model_copy(update={"weights": None})
    with torch.device("meta"):
        return build_model(config.model_copy(update={"backbone": backbone}), in_channels=in_channels, seed=0)

"""Checks of a trial's parts: try its losses, and build its network without memory."""

from __future__ import annotations

import torch
from torch import Tensor

from dmlcore.config.trial import ModelConfig, TrialConfig
from dmlcore.metrics.pairwise.tiles import one_thread
from dmlcore.models import Embedder
from dmlcore.training.build import Objective, build_model, build_objective
from dmlcore.training.features import check_frozen
from dmlcore.training.gradient_cache import check_chunks
from dmlcore.training.loss_state import LossState

LARGEST_BATCH = 512
"""Embeddings of the two steps: some losses take all triplets, B^3 numbers."""


def check_network(config: TrialConfig) -> None:
    """Build the network of a trial without memory.

    Raises:
        ValueError: it cannot be built, or cannot be trained with these settings.
    """
    if config.model.trunk == "frozen":
        check_frozen(config)
    check_chunks(meta_model(config.model, in_channels=3), config.train.chunk_size)


def check_combination(config: TrialConfig) -> None:
    """Build the losses of a trial together.

    Raises:
        ValueError: one cannot be built, or they do not go together.
    """
    _built(config)


def _built(config: TrialConfig) -> tuple[Objective, Tensor]:
    """Build the losses of a trial, and the labels of a batch that is as large as needed to try them."""
    size = min(config.train.batch_size, LARGEST_BATCH)
    labels = torch.arange(size) // config.train.images_per_class
    return build_objective(config, num_classes=max(int(labels[-1]) + 1, 2)), labels


def check_objective(config: TrialConfig) -> None:
    """Take two steps of the losses on random embeddings: some fail in the second, because of the state that they keep.

    Raises:
        ValueError: a loss cannot be built, fails, or keeps state that no checkpoint can store.
    """
    objective, labels = _built(config)
    if config.train.batch_limit is None:  # else the data set may make the batches smaller
        objective.check_batch_size(config.train.batch_size)
    state = LossState(objective)
    generator = torch.Generator().manual_seed(0)
    name = config.loss.name if objective.base is not None else config.regularizers[0].name
    for step in (1, 2):
        embeddings = torch.randn(
            len(labels), config.model.embedding_dim, generator=generator
        ).requires_grad_()
        try:
            with one_thread():  # steps so small gain nothing by two
                torch.stack(list(objective(embeddings, labels).values())).sum().backward()
        except Exception as error:  # whatever a user's loss raises
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            raise ValueError(f"the loss {name!r} fails in step {step} of training: {reason}") from error
    state.save()


def meta_model(config: ModelConfig, *, in_channels: int) -> Embedder:
    """Return the network on the meta device: names, shapes and layers of the real one, no memory."""
    backbone = config.backbone.model_copy(update={"weights": None})
    with torch.device("meta"):
        return build_model(config.model_copy(update={"backbone": backbone}), in_channels=in_channels, seed=0)

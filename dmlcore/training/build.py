"""Config -> the objects of a trial: embedder, objective, optimiser, learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dmlcore.config.trial import ComponentConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrialConfig
from dmlcore.core.seeding import derived_seed
from dmlcore.losses import build_loss, build_regularizer
from dmlcore.losses.base import MetricLoss
from dmlcore.models import Embedder, Head, build_embedder, build_head
from dmlcore.models.backbones import build_backbone
from dmlcore.training.language import Texts, dummy_text_embeddings, loss_params


def build_model(config: ModelConfig, *, in_channels: int, seed: int) -> Embedder:
    """Build the embedder; `config` and `seed` decide its initial weights, so variants of a comparison share them."""
    torch.manual_seed(derived_seed(seed, "model"))
    backbone = build_backbone(
        config.backbone.name,
        arguments=config.backbone.arguments,
        weights=config.backbone.weights,
        in_channels=in_channels,
    )
    return build_embedder(
        backbone,
        pooling=config.pooling,
        normalization=config.normalization,
        embedding_dim=config.embedding_dim,
        freeze_batch_norm=config.backbone.freeze_batch_norm,
        channels_last=config.channels_last,
    )


def build_features_head(config: ModelConfig, *, num_features: int, seed: int) -> Head:
    """Build the head of a trial on a frozen trunk of `num_features` features, from `config` and `seed` alone."""
    torch.manual_seed(derived_seed(seed, "model"))
    return build_head(num_features, normalization=config.normalization, embedding_dim=config.embedding_dim)


class Objective(nn.Module):
    """Base loss plus regularisers, each on the same embeddings."""

    def __init__(self, base: nn.Module | None, regularizers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.base = base
        self.regularizers = nn.ModuleDict(regularizers)

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the terms by name; their sum is the loss. `[B, D]`, `[B]` -> scalars."""
        terms = {} if self.base is None else {"base": self.base(embeddings, labels)}
        return terms | {name: term(embeddings, labels) for name, term in self.regularizers.items()}

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse batches that a loss cannot take.

        Raises:
            ValueError: a loss refuses them.
        """
        for term in (self.base, *self.regularizers.values()):
            if isinstance(term, MetricLoss):
                term.check_batch_size(batch_size)


def build_objective(config: TrialConfig, *, num_classes: int, texts: Texts | None = None) -> Objective:
    """Build the objective of a trial; its own parameters are drawn from (seed, "loss").

    Args:
        config: the trial.
        num_classes: C, of the training split.
        texts: text embeddings of the classes for a component; None: dummy embeddings, to check a config.

    Raises:
        ValueError: unknown loss or regulariser, wrong argument, or neither a loss nor a regulariser.
    """
    torch.manual_seed(derived_seed(config.seed, "loss"))
    width = config.model.embedding_dim

    def built(component: ComponentConfig, build: Callable[..., nn.Module]) -> nn.Module:
        params = loss_params(component, texts or dummy_text_embeddings(num_classes))
        return build(component.name, num_classes=num_classes, embedding_dim=width, **params)

    names = [component.name for component in config.regularizers]
    if len(set(names)) < len(names):
        raise ValueError(f"`regularizers` must name each regulariser once, got {names}")
    if config.loss.name == "none" and not names:
        raise ValueError("`loss: none` needs at least one regulariser to train with, got an empty list")
    base = None if config.loss.name == "none" else built(config.loss, build_loss)
    return Objective(base, {part.name: built(part, build_regularizer) for part in config.regularizers})


def build_optimizer(
    config: OptimizerConfig, model: Embedder | Head, objective: Objective
) -> torch.optim.Optimizer:
    """Build the optimiser with a group each for backbone, head and the loss's own parameters.

    Vectors and scalars (biases, normalisation gains, the GeM exponent) and the loss's own parameters are not decayed.
    """
    rate = config.learning_rate
    trunk = list(model.backbone.parameters()) if isinstance(model, Embedder) else []
    head = list(model.parameters())[len(trunk) :]  # the backbone is the first part of an embedder
    groups = [
        *_groups(trunk, rate, config.weight_decay),
        *_groups(head, config.head_learning_rate or rate, config.weight_decay),
        *_groups(list(objective.parameters()), config.loss_learning_rate or rate, 0.0),
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    # fused: one kernel a step in place of some 10 a parameter (1 ms in place of 9 for a ResNet-10 on a CPU)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name](groups, lr=rate, fused=True)


def _groups(parameters: list[nn.Parameter], rate: float, decay: float) -> list[dict[str, object]]:
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
    groups = [
        {"params": matrices, "lr": rate, "weight_decay": decay},
        {"params": vectors, "lr": rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def schedule_factor(config: ScheduleConfig, *, epochs: int, progress: float) -> float:
    """Return the factor of the learning rates at `progress` epochs (a fraction within an epoch counts)."""
    if progress < config.warmup_epochs:
        return max(progress, 1.0e-3) / config.warmup_epochs
    if config.name == "cosine":
        done = (progress - config.warmup_epochs) / max(config.until * epochs - config.warmup_epochs, 1.0e-9)
        return config.floor + (1.0 - config.floor) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
    if config.name == "milestones":
        return config.factor ** sum(progress >= milestone for milestone in config.milestones)
    return 1.0

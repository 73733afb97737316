"""Backbones by name, and the embedder on top of them: backbone -> pooling -> normalisation -> projection.

Shapes: B batch, F features of the backbone, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmlcore.models.backbones import Backbone, build_backbone

__all__ = ["Backbone", "Embedder", "Head", "build_backbone", "build_embedder", "build_head"]


LARGEST_OF_BFLOAT16 = 3.3e38


class GeneralizedMean(nn.Module):
    """Generalised-mean pooling, ((1/n) sum x^p)^(1/p) with x clamped to at least `floor`.

    Reference: Radenovic, Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation", 2018, eq. 3.
    """

    def __init__(self, exponent: float = 3.0, floor: float = 1.0e-6) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(exponent))
        self.floor = floor

    def forward(self, features: Tensor) -> Tensor:
        """`[B, F, n]` -> `[B, F]`."""
        return features.clamp(min=self.floor).pow(self.exponent).mean(dim=2).pow(1.0 / self.exponent)


class AveragePool(nn.Module):
    """Mean over positions: `[B, F, n]` -> `[B, F]`."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=2)


class TokenPool(nn.Module):
    """The class token, first of a transformer's tokens: `[B, F, N]` -> `[B, F]`."""

    def forward(self, features: Tensor) -> Tensor:
        return features[:, :, 0]


class LayerNorm(nn.LayerNorm):
    """Layer normalisation that also takes rows whose squares overflow (float32: from 1.8e19 on), not as zeros."""

    def forward(self, features: Tensor) -> Tensor:
        """`[B, F]` -> `[B, F]`."""
        largest = torch.finfo(features.dtype).max
        if largest < LARGEST_OF_BFLOAT16:
            return super().forward(features)
        return super().forward(features * _shrinking(features, dim=1))


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that also takes columns whose squares overflow (float32: from 1.8e19 on), not as zeros.

    A running variance that is no float is the largest one: such columns are finite in evaluation, and too long.
    """

    def forward(self, features: Tensor) -> Tensor:
        """`[B, F]` -> `[B, F]`."""
        largest = torch.finfo(features.dtype).max
        if not self.training or largest < LARGEST_OF_BFLOAT16:
            return super().forward(features)
        scale = _shrinking(features, dim=0)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        mean, variance = self.running_mean.clone(), self.running_var.clone()
        normalized = functional.batch_norm(
            features * scale, mean, variance, self.weight, self.bias, True, self.momentum, self.eps
        )
        self.num_batches_tracked.add_(1)
        self._keep(self.running_mean, mean, [scale[0]])
        self._keep(self.running_var, variance, [scale[0], scale[0]])
        return normalized

    def _keep(self, running: Tensor, scaled: Tensor, factors: list[Tensor]) -> None:
        """Update a running statistic from that of scaled columns; ordinary ones keep their bits."""
        assert self.momentum is not None
        kept = (1 - self.momentum) * running
        batch = scaled.detach() - kept
        for factor in factors:
            batch = batch / factor
        unscaled = (kept + batch).clamp(max=torch.finfo(running.dtype).max)
        running.copy_(torch.where(factors[0] == 1, scaled.detach(), unscaled))


def _shrinking(features: Tensor, dim: int) -> Tensor:
    """Return factors: 1, so that ordinary features keep their bits, and 1e15 over the peak where squares overflow."""
    peak = features.detach().abs().amax(dim=dim, keepdim=True)
    # Next to 1e15 the epsilon is nothing.
    return torch.where(peak > torch.finfo(features.dtype).max ** 0.45, 1.0e15 / peak, torch.ones_like(peak))


POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "average": AveragePool,
    "gem": GeneralizedMean,
    "token": TokenPool,
}
NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "layer_norm": LayerNorm,
    "batch_norm": BatchNorm,
}


class Head(nn.Module):
    """From pooled features to embeddings: all that a trial on a frozen trunk trains."""

    def __init__(self, normalization: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.normalization = normalization
        self.projection = projection

    def forward(self, features: Tensor) -> Tensor:
        """`[B, F]` -> `[B, D]`."""
        return self.projection(self.normalization(features))


class Embedder(nn.Module):
    """Images to embeddings, not normalised: each loss normalises its own input, and evaluation does too."""

    def __init__(
        self, backbone: Backbone, pooling: nn.Module, normalization: nn.Module, projection: nn.Module
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.normalization = normalization
        self.projection = projection
        self.frozen_batch_norm = False
        self.memory_format = torch.contiguous_format

    def pooled(self, images: Tensor) -> Tensor:
        """Return `[B, F]` of images `[B, channels, H, W]`: what a frozen trunk stores."""
        features = self.backbone(images.contiguous(memory_format=self.memory_format))
        flat = features.flatten(2) if features.dim() == 4 else features.transpose(1, 2)
        return self.pooling(flat)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, channels, H, W]` -> `[B, D]`."""
        return self.projection(self.normalization(self.pooled(images)))

    def train(self, mode: bool = True) -> Embedder:
        super().train(mode)
        if mode and self.frozen_batch_norm:  # in evaluation mode it keeps its running statistics
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def build_embedder(
    backbone: Backbone,
    *,
    pooling: str,
    normalization: str,
    embedding_dim: int,
    freeze_batch_norm: bool = False,
    channels_last: bool = False,
) -> Embedder:
    """Build a head of `pooling`, `normalization` and a linear projection to `embedding_dim` on `backbone`.

    `channels_last` lays images and filters out pixel by pixel, which convolutions run faster on.

    Raises:
        ValueError: unknown pooling or normalization.
    """
    _check_known("pooling", pooling, POOLINGS)
    _check_known("normalization", normalization, NORMALIZATIONS)
    width = backbone.num_features
    embedder = Embedder(
        backbone, POOLINGS[pooling](), NORMALIZATIONS[normalization](width), nn.Linear(width, embedding_dim)
    )
    embedder.frozen_batch_norm = freeze_batch_norm
    if channels_last:
        embedder.memory_format = torch.channels_last
        embedder.to(memory_format=torch.channels_last)
    return embedder


def build_head(num_features: int, *, normalization: str, embedding_dim: int) -> Head:
    """Build the head alone, for features of a frozen trunk.

    Raises:
        ValueError: unknown normalization.
    """
    _check_known("normalization", normalization, NORMALIZATIONS)
    return Head(NORMALIZATIONS[normalization](num_features), nn.Linear(num_features, embedding_dim))


def _check_known(key: str, value: str, known: Mapping[str, object]) -> None:
    if value not in known:
        raise ValueError(f"`model.{key}` must be one of {sorted(known)}, got {value!r}")

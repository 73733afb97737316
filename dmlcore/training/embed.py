"""The images of a split to embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dmlcore.training.feeds import Feed
from dmlcore.training.precision import autocast


def embed(model: nn.Module, feed: Feed, device: torch.device, precision: str | None = None) -> Tensor:
    """Embed all images of `feed` in evaluation mode: `[N, D]` float32 on the CPU."""
    model.eval()
    parts = []
    for batch in feed.evaluation():
        with torch.inference_mode(), autocast(device, precision):
            parts.append(model(batch).float().cpu())
    return torch.cat(parts)

"""Images of a split to embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from dmlcore.data.packed import Split
from dmlcore.data.transforms import to_float
from dmlcore.models import Embedder

EMBEDDING_BATCH = 512


@torch.inference_mode()
def embed(model: Embedder, split: Split, device: torch.device) -> Tensor:
    """Embed all images of `split` in evaluation mode: `[N, D]` float32 on the CPU."""
    model.eval()
    parts = []
    for start in range(0, len(split.labels), EMBEDDING_BATCH):
        images = to_float(split.images[start : start + EMBEDDING_BATCH]).to(device)
        parts.append(model(images).float().cpu())
    return torch.cat(parts)

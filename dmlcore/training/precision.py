"""The arithmetic of the embedder: float32, or bfloat16 where it is autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast(device: torch.device, precision: str | None) -> AbstractContextManager[object]:
    """The context that the embedder runs in; losses and metrics stay outside of it."""
    if precision is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))

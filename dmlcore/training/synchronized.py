"""Batch normalisation with the statistics of the rows of all processes, for any module that normalises batches.

Shapes: [B, C, ...] rows of this process, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn.functional import batch_norm
from torch.overrides import TorchFunctionMode


class SynchronizedBatchNorm(TorchFunctionMode):
    """Every batch normalisation of torch, whatever module calls it, with the statistics of all ranks.

    torch.nn.SyncBatchNorm runs on CUDA alone and would replace the modules: those of timm that activate as well, and
    the head's that keeps large columns finite.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Do as torch.nn.functional.batch_norm, of the rows of all ranks; `input` [B, C, ...]."""
    if not training:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    normalized, mean, variance, count = _Normalize.apply(input, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.mul_(1 - momentum).add_(momentum * mean.to(running_mean.dtype))
            unbiased = variance * (count / (count - 1))
            running_var.mul_(1 - momentum).add_(momentum * unbiased.to(running_var.dtype))
    if weight is not None:
        normalized = normalized * _along(weight, input)
    if bias is not None:
        normalized = normalized + _along(bias, input)
    result: Tensor = normalized.to(input.dtype)
    return result


def _along(values: Tensor, rows: Tensor) -> Tensor:
    """Shape [C] as [1, C, 1, ...]."""
    return values.view(1, -1, *[1] * (rows.dim() - 2))


def _summed(rows: Tensor) -> Tensor:
    """Add up [B, C, ...] over all but the channels and over all ranks: [C], float64, for counts above 2^24 too."""
    total = rows.sum(dim=[0, *range(2, rows.dim())]).double()
    distributed.all_reduce(total)
    return total


class _Normalize(torch.autograd.Function):
    """[B, C, ...] of each rank -> zero mean and unit variance over the rows of all; mean, variance [C] and the count.

    Two passes, for a variance without cancellation; the input alone is kept for the way back.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = rows if rows.dtype == torch.float64 else rows.float()
        # Filled on the device: a number that is copied there would make the CPU wait for the GPU.
        count = rows.new_full((1,), rows.numel() // max(1, rows.shape[1]), dtype=torch.float64)
        distributed.all_reduce(count)
        mean = _summed(wide) / count
        centred = wide - _along(mean.to(wide.dtype), rows)
        variance = _summed(centred.square()) / count
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(rows, mean, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return centred * _along(scale.to(wide.dtype), rows), mean, variance, count

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *unused: Any) -> tuple[Tensor, None]:
        rows, mean, scale, count = ctx.saved_tensors
        scale = _along(scale.to(upstream.dtype), rows)
        normalized = (rows.to(upstream.dtype) - _along(mean.to(upstream.dtype), rows)) * scale
        offset = _along((_summed(upstream) / count).to(upstream.dtype), rows)
        slope = _along((_summed(upstream * normalized) / count).to(upstream.dtype), rows)
        return (scale * (upstream - offset - normalized * slope)).to(rows.dtype), None

"""The batch of all processes of a data-parallel step, for losses that compare each image with all others.

Shapes: B rows of this process, W processes, N rows of all of them, D embedding width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def gather_across_ranks(
    embeddings: Tensor, labels: Tensor, group: distributed.ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    """Concatenate the embeddings and labels of all processes, in the order of their ranks, with an exact gradient.

    Its gradient is the sum of what all ranks send back, which is that of the sum of their losses. Where each rank
    computes the loss of all N rows and DistributedDataParallel averages over the W ranks, W / W = 1: the parameters
    of the network, and those of the loss, get the gradient of one process on the whole batch, with no factor. Without
    that average (`embeddings.grad`, gradients summed over ranks) divide by W.

    Args:
        embeddings: [B, D], float; B may differ between ranks and be 0 on some.
        labels: [B], integer.
        group: the processes, all by default.

    Returns:
        Embeddings [N, D] and labels [N], the same on each rank; the arguments themselves where torch.distributed is not
        initialised or W is 1. Each rank must call it, and backward, alike.

    Raises:
        ValueError: shapes are not as above, or D or the types differ between ranks; then on every rank.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return embeddings, labels
    if distributed.get_world_size(group) == 1:
        return embeddings, labels
    sizes, differentiate = _agree(embeddings, labels, group)
    # A rank without rows may have no graph; backward is a collective, so that it must take part all the same.
    tie = embeddings.new_zeros((), requires_grad=differentiate)
    rows: Tensor = _Gather.apply(embeddings, tie, sizes, group)
    return rows, _concatenate(labels, sizes, group)


def gather_rows(rows: Tensor, sizes: list[int], group: distributed.ProcessGroup | None = None) -> Tensor:
    """Concatenate the rows of all processes where each knows the others' numbers: nobody waits for an agreement.

    Args:
        rows: [B, D], float; D and the type are alike on all ranks.
        sizes: [W], the number of rows of each rank.
        group: the processes, all by default.

    Returns:
        [N, D], with the gradient of `gather_across_ranks`; each rank must call it, and backward, alike.
    """
    if not torch.is_grad_enabled():
        return _concatenate(rows, sizes, group)
    gathered: Tensor = _Gather.apply(rows, rows.new_zeros((), requires_grad=True), sizes, group)
    return gathered


def _agree(
    embeddings: Tensor, labels: Tensor, group: distributed.ProcessGroup | None
) -> tuple[list[int], bool]:
    """Exchange the numbers of rows, check what must be alike, and tell whether a rank wants a gradient."""
    fits = embeddings.dim() == 2 and labels.shape == embeddings.shape[:1] and embeddings.dtype in DTYPES
    own = [
        int(fits),
        embeddings.shape[0] if fits else 0,
        embeddings.shape[1] if fits else 0,
        DTYPES.index(embeddings.dtype) if fits else -1,
        labels.element_size(),
        int(torch.is_grad_enabled() and embeddings.requires_grad),
    ]
    mine = torch.tensor(own, device=embeddings.device)
    everyone = [torch.empty_like(mine) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(everyone, mine, group=group)
    table = torch.stack(everyone).tolist()
    # Every rank sees the same table, so that none is left waiting for one that refused.
    for rank, row in enumerate(table):
        if not row[0]:
            got = (
                f", got {embeddings.dtype} {list(embeddings.shape)} and {list(labels.shape)}"
                if not fits
                else ""
            )
            raise ValueError(
                f"gather_across_ranks: rank {rank} must have float embeddings [B, D] and labels [B]{got}"
            )
        if row[2:5] != table[0][2:5]:
            raise ValueError(
                "gather_across_ranks: the width, the float type and the size of an integer label must be alike on all "
                f"ranks; rank 0 has {_describe(table[0])}, rank {rank} {_describe(row)}"
            )
    return [row[1] for row in table], any(row[5] for row in table)


def _describe(row: list[int]) -> str:
    return f"width {row[2]}, {DTYPES[row[3]]}, labels of {8 * row[4]} bits"


def _concatenate(values: Tensor, sizes: list[int], group: distributed.ProcessGroup | None) -> Tensor:
    """Concatenate [B, ...] of all ranks; a collective wants equal shapes, so that short ones are padded."""
    padded = values.new_zeros((max(sizes), *values.shape[1:]))
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded, group=group)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class _Gather(torch.autograd.Function):
    """[B, D] of each rank -> [N, D] of all."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, tie: Tensor, sizes: list[int], group: distributed.ProcessGroup | None
    ) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        return _concatenate(rows, sizes, group)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return _SumOwn.apply(upstream, ctx.sizes, ctx.group), None, None, None


class _SumOwn(torch.autograd.Function):
    """[N, D] of each rank -> [B, D], this rank's rows of their sum: what sends a gradient of `_Gather` back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], group: distributed.ProcessGroup | None) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        total = rows.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total, group=group)
        rank = distributed.get_rank(group)
        start = sum(sizes[:rank])
        return total[start : start + sizes[rank]].clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        tie = upstream.new_zeros((), requires_grad=torch.is_grad_enabled())
        return _Gather.apply(upstream, tie, ctx.sizes, ctx.group), None, None

"""The processes of a data-parallel trial. Rank 0 leads: it alone has the loss, the optimiser and the store.

A step: rank 0 sends the weights out, each rank embeds its share of the batch, rank 0 takes the loss of all embeddings,
each rank carries its part of the gradient through the network, and rank 0 adds these up and steps. So there is one copy
of proxies, queues and moments: nothing can drift apart, and a checkpoint is that of one process.
Shapes: N rows of all ranks, B of this one, D width; C channels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import batch_norm
from torch.overrides import TorchFunctionMode

from dmlcore.losses.gather import gather_rows
from dmlcore.training.gradient_cache import mixing_layers
from dmlcore.training.samplers import shares


@dataclass(frozen=True)
class Ranks:
    """The processes of a trial as one of them sees them; by default it is alone. They talk over torch.distributed."""

    rank: int = 0
    size: int = 1
    tell_others: Callable[[str, Any], None] = lambda method, argument: None
    """Of rank 0: lets the others call a method of their trainer."""

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def tell(self, method: str, argument: Any) -> None:
        """Let the other ranks call `method` of their trainer, as rank 0 is about to."""
        if self.leads:
            self.tell_others(method, argument)

    def own(self, count: int) -> slice:
        """Return which of `count` rows of a batch are this rank's."""
        return shares(count, self.size)[self.rank]

    def gather(self, rows: Tensor, runs: list[slice]) -> Tensor:
        """Concatenate the rows [B, D] of all ranks to [N, D], the gradients of all of them summed on the way back.

        Args:
            rows: of this rank.
            runs: which of the N rows each rank has.
        """
        return rows if self.size == 1 else gather_rows(rows, [run.stop - run.start for run in runs])

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add the gradients of all ranks up on rank 0; those of the others are spent."""
        if self.size == 1:
            return
        for gradients in _by_type(one.grad for one in parameters if one.grad is not None):
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            distributed.reduce(flat, 0)
            if self.leads:
                _unflatten(flat, gradients)

    def send(self, tensors: Iterable[Tensor]) -> None:
        """Give all ranks the values that rank 0 has."""
        if self.size == 1:
            return
        for values in _by_type(tensor.detach() for tensor in tensors):
            flat = torch.cat([value.reshape(-1) for value in values])
            distributed.broadcast(flat, 0)
            if not self.leads:
                _unflatten(flat, values)

    @contextmanager
    def all_threads(self, threads: int) -> Iterator[None]:
        """Let rank 0 evaluate with the threads of all ranks, which wait: any number counts the same.

        Args:
            threads: of each process.
        """
        torch.set_num_threads(threads * self.size)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def batch_norm(self) -> AbstractContextManager[object]:
        """Let BatchNorm take its statistics over the rows of all ranks within the block."""
        return nullcontext() if self.size == 1 else _SynchronizedBatchNorm()


ALONE = Ranks()


def check_size(ranks: Ranks, processes: int) -> None:
    """Refuse another number of processes than a trial is for: its key has that number."""
    if ranks.size != processes:
        raise ValueError(
            f"this trial is for {processes} processes, got {ranks.size}: start them with "
            "dmlcore.sweep.execution.data_parallel.started_ranks and pass them as `ranks`"
        )


def check_ranks(ranks: Ranks, batch_size: int, model: nn.Module, *, compiled: bool) -> None:
    """Refuse what several processes cannot train.

    Raises:
        ValueError: fewer images than processes in a batch; or BatchNorm over the batch in a compiled network.
    """
    if ranks.size == 1:
        return
    if batch_size < ranks.size:
        raise ValueError(
            f"train.batch_size must be at least the number of processes ({ranks.size}), got {batch_size}: raise it, "
            "or give the trial fewer processes in sweep.resources"
        )
    model.train()
    if compiled and (names := mixing_layers(model)):
        raise ValueError(
            f"model.compile on several processes needs a network without BatchNorm over the batch, got {names[0]!r}: set "
            "model.backbone.freeze_batch_norm and model.normalization to layer_norm or none, or remove model.compile"
        )


def _by_type(tensors: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Group tensors by their type, in their order: each group travels as one buffer."""
    groups: defaultdict[torch.dtype, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.dtype].append(tensor)
    return groups.values()


def _unflatten(flat: Tensor, tensors: list[Tensor]) -> None:
    for part, tensor in zip(flat.split([tensor.numel() for tensor in tensors]), tensors, strict=True):
        tensor.copy_(part.view(tensor.shape))


class _SynchronizedBatchNorm(TorchFunctionMode):
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
        count = torch.tensor([rows.numel() // max(1, rows.shape[1])], dtype=torch.float64, device=rows.device)
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

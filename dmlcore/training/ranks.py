"""The processes of a data-parallel trial. Rank 0 leads: it alone has the loss, the optimiser and the store.

A step: rank 0 sends the weights out, each rank embeds its share of the batch, rank 0 takes the loss of all embeddings,
each rank carries its part of the gradient through the network, and rank 0 adds these up and steps. So there is one copy
of proxies, queues and moments: nothing can drift apart, and a checkpoint is that of one process.
Shapes: N rows of all ranks, B of this one, D width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from dmlcore.losses.gather import gather_rows
from dmlcore.metrics.evaluation import Evaluation, evaluate
from dmlcore.training.gradient_cache import mixing_layers
from dmlcore.training.samplers import shares
from dmlcore.training.synchronized import SynchronizedBatchNorm


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
        """Return which of `count` rows of a batch are this rank's.

        Raises:
            ValueError: there are fewer rows than ranks.
        """
        if count < self.size:
            raise ValueError(
                f"a batch must have at least an image for each of the {self.size} processes, got {count}: raise "
                "train.batch_size, or give the trial fewer processes in sweep.resources"
            )
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

    def batch_norm(self, model: nn.Module) -> Callable[[], AbstractContextManager[object]]:
        """Return what makes the block in which BatchNorm of `model` takes its statistics over the rows of all ranks."""
        if self.size == 1:
            return nullcontext
        model.train()
        return SynchronizedBatchNorm if mixing_layers(model) else nullcontext


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
    ranks.own(batch_size)
    model.train()
    if compiled and (names := mixing_layers(model)):
        raise ValueError(
            f"model.compile over several processes needs frozen BatchNorm, got {names[0]!r}: set "
            "model.backbone.freeze_batch_norm, and model.normalization to layer_norm or none, or do not compile"
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


def evaluate_shared(
    ranks: Ranks, device: torch.device, given: Mapping[str, Any], settings: dict[str, Any]
) -> Evaluation:
    """Evaluate embeddings that rank 0 has, each rank a share of the pairs: the numbers of one process, to the bit.

    Args:
        ranks: as rank 0 sees them.
        device: its own.
        given: the arguments of `evaluate` that have a row an image; None: it is not given.
        settings: the others, as JSON takes them.
    """
    tensors = {
        name: torch.as_tensor(value, device=device) for name, value in given.items() if value is not None
    }
    kinds = {name: [str(value.dtype).split(".")[1], list(value.shape)] for name, value in tensors.items()}
    ranks.tell("evaluate", {"kinds": kinds, "settings": settings})
    return _take_part(ranks, device, tensors, settings)


def follow_evaluation(ranks: Ranks, device: torch.device, told: Mapping[str, Any]) -> None:
    """Take part in `evaluate_shared` as another rank; `told` is what rank 0 told."""
    tensors = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device=device)
        for name, (dtype, shape) in told["kinds"].items()
    }
    _take_part(ranks, device, tensors, told["settings"])


def _take_part(
    ranks: Ranks, device: torch.device, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> Evaluation:
    ranks.send(tensors.values())
    arguments: dict[str, Any] = dict(tensors)
    arguments |= {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    return evaluate(**arguments, device=device, share=True)

"""A batch over several gloo processes has the loss and the gradient of one process."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dmlcore.losses import gather_across_ranks
from dmlcore.losses.pml import to_pml
from tests.losses.cases import BUILDERS, LABELS, NUM_CLASSES, WIDTH, batch
from tests.ranks import on_ranks

SHARES = {2: ((5, 5), (7, 3), (0, 10)), 3: ((4, 4, 2), (6, 0, 4))}
LOSSES = (("regularizer", "tcm"), ("loss", "smooth_ap"), ("loss", "proxy_anchor"))


class Network(nn.Module):
    """A network and a loss with parameters of its own, so that one average serves both."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.embed = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, WIDTH))
        self.loss = BUILDERS[kind](name, num_classes=NUM_CLASSES, embedding_dim=WIDTH)
        self.double()

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.loss(*gather_across_ranks(self.embed(images), labels))

    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters()]


def images() -> Tensor:
    return torch.randn(len(LABELS), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


def one_process(kind: str, name: str) -> list[Tensor]:
    network = Network(kind, name)
    value = network(images(), torch.tensor(LABELS))
    value.backward()
    return [value.detach(), *network.gradients()]


def rank_of_a_step(rank: int, world_size: int) -> list[Any]:
    """Each split and loss under DistributedDataParallel; then what else goes over ranks."""
    results: list[Any] = []
    for sizes in SHARES[world_size]:
        own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        for kind, name in LOSSES:
            network = Network(kind, name)
            parallel = DistributedDataParallel(network)  # must live on until after backward
            value = parallel(images()[own], torch.tensor(LABELS)[own])
            value.backward()
            results.append([value.detach(), *network.gradients()])
    return [results, rows_of(rank, world_size), theirs(rank, world_size), refusals(rank)]


def rows_of(rank: int, world_size: int) -> list[Tensor]:
    """The gradients, by this rank's rows, of a loss and of its gradient penalty, where one rank has no rows."""
    sizes = SHARES[world_size][-1]
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    x, labels = batch()
    supcon = BUILDERS["loss"]("supcon", num_classes=1, embedding_dim=1)
    mine = x.detach()[own].requires_grad_(sizes[rank] > 0)  # no rows, no graph; backward waits for no one
    value = supcon(*gather_across_ranks(mine, labels[own]))
    value.backward()
    once = torch.zeros(0, WIDTH).double() if mine.grad is None else mine.grad / world_size
    mine = x.detach()[own].requires_grad_()
    value = supcon(*gather_across_ranks(mine, labels[own])) / world_size
    (first,) = torch.autograd.grad(value, mine, create_graph=True)
    return [once, torch.autograd.grad(first.square().sum(), mine)[0]]


def theirs(rank: int, world_size: int) -> list[Tensor]:
    """TCM under their wrapper, both ways of it, gradients averaged over ranks as they ask for."""
    if 10 % world_size or find_spec("pytorch_metric_learning") is None:  # their gather wants equal shares
        return []
    from pytorch_metric_learning.utils.distributed import DistributedLossWrapper  # takes seconds to import

    x, labels = batch()
    own = slice(rank * 10 // world_size, (rank + 1) * 10 // world_size)
    results = []
    for efficient in (False, True):
        mine = x.detach()[own].requires_grad_()
        tcm = BUILDERS["regularizer"]("tcm", num_classes=1, embedding_dim=1)
        value = DistributedLossWrapper(to_pml(tcm), efficient=efficient)(mine, labels[own])
        results += [value.detach(), torch.autograd.grad(value, mine)[0] / world_size]
    return results


def refusals(rank: int) -> list[str]:
    """What each rank says to arguments that differ between ranks."""
    messages = []
    for vectors, labels in (
        (torch.ones(2, 3 + rank), torch.zeros(2, dtype=torch.long)),
        (torch.ones(2, 3, dtype=torch.float64 if rank else torch.float32), torch.zeros(2, dtype=torch.long)),
        (torch.ones(2, 3), torch.zeros(2 - rank, dtype=torch.long)),
    ):
        with pytest.raises(ValueError) as caught:
            gather_across_ranks(vectors, labels)
        messages.append(str(caught.value))
    return messages


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_do_what_one_process_does(world_size, tmp_path):
    ranks = on_ranks(rank_of_a_step, world_size, tmp_path)
    want = [one_process(kind, name) for kind, name in LOSSES] * len(SHARES[world_size])
    for results, *_ in ranks:
        for found, expected in zip(results, want, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)

    x, labels = batch()
    value = BUILDERS["loss"]("supcon", num_classes=1, embedding_dim=1)(x, labels)
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    (penalty,) = torch.autograd.grad(first.square().sum(), x)
    for number, expected in enumerate((first.detach(), penalty)):
        found = torch.cat([results[1][number] for results in ranks])
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)

    tcm = BUILDERS["regularizer"]("tcm", num_classes=1, embedding_dim=1)(x, labels)
    (gradient,) = torch.autograd.grad(tcm, x)
    if ranks[0][2]:
        torch.testing.assert_close(ranks[0][2][0], tcm.detach() * world_size)
        torch.testing.assert_close(torch.cat([results[2][1] for results in ranks]), gradient)
        # Their efficient way keeps each rank's own anchors: another loss, of which only the sign of life is tested.
        assert all(results[2][3].isfinite().all() and results[2][3].any() for results in ranks)

    for *_, messages in ranks:
        assert "rank 0 has width 3, torch.float32, labels of 64 bits, rank 1 width 4" in messages[0]
        assert "rank 1 width 3, torch.float64" in messages[1]
        assert "rank 1 must have float embeddings [B, D] and labels [B]" in messages[2]


def test_one_process_keeps_its_tensors():
    x, labels = batch()
    assert gather_across_ranks(x, labels) == (x, labels)

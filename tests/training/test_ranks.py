"""A step of several processes has the loss, the gradient and the statistics of one process on the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dmlcore.data.dataset import PreparedDataset
from dmlcore.models import Embedder
from dmlcore.training.ranks import Ranks, check_size
from dmlcore.training.samplers import shares
from dmlcore.training.trainer import Trainer
from tests.ranks import on_ranks
from tests.small import BACKBONE, small_trial

CPU = torch.device("cpu")
AUGMENTED = {"augmentation": {"rotation_degrees": 20.0, "horizontal_flip": True, "translate": 0.1}}
FROZEN = {"backbone": BACKBONE | {"freeze_batch_norm": True}, "pooling": "gem"}
CROPS = {"size": 12, "random_crop": {"scale": [0.3, 1.0]}}
CASES: dict[str, dict[str, Any]] = {
    "synchronized": {"model": {"normalization": "batch_norm"}, "train": AUGMENTED, "input": CROPS},
    "frozen": {"model": FROZEN, "loss": {"name": "proxy_anchor"}, "train": AUGMENTED},
    "frozen, in chunks": {
        "model": FROZEN,
        "loss": {"name": "proxy_anchor"},
        "train": AUGMENTED | {"chunk_size": 3},
        "input": CROPS,
    },
}


def one_step(rank: int, size: int, folder: Path, caches: Path) -> list[list[Tensor]]:
    """Return, of each case, the loss, the gradients of all parameters and the state of the network after two steps."""
    torch.set_num_threads(1)
    return [_one_step(Ranks(rank, size), changes, folder, caches) for changes in CASES.values()]


def _one_step(ranks: Ranks, changes: dict[str, Any], folder: Path, caches: Path) -> list[Tensor]:
    trainer = Trainer(small_trial(**changes), PreparedDataset.open(folder), "train", CPU, caches, ranks)
    trainer.model.double()
    trainer.objective.double()
    batches = [batch[:15] for batch in trainer._batches(1)[:2]]  # which no number of processes divides
    loaded = trainer.loader.training_batches(batches, seed=0, epoch=1, share=ranks.own)
    results: list[Tensor] = []
    for labels, batch in zip(trainer._labels(batches), loaded, strict=True):
        doubled = type(batch)(batch.size, lambda rows, chunk=batch.chunk: chunk(rows).double())
        trainer.model.train()
        terms = trainer._step(doubled, labels)
        ranks.sum_gradients(trainer.model.parameters())
        if ranks.leads:
            parameters = [*trainer.model.parameters(), *trainer.objective.parameters()]
            results += [terms["loss"], *[one.grad.clone() for one in parameters if one.grad is not None]]
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.data -= 0.01 * parameter.grad
        ranks.send(trainer.model.parameters())
    return [*results, *[value.clone() for value in trainer.model.state_dict().values()]]


@pytest.fixture(scope="module")
def one_process(small_data, tmp_path_factory):
    return one_step(0, 1, small_data.folder, tmp_path_factory.mktemp("caches"))


@pytest.mark.parametrize("size", [2, 4])
def test_a_step_of_several_processes_is_that_of_one(small_data, tmp_path, one_process, size):
    ranks = on_ranks(one_step, size, tmp_path, small_data.folder, tmp_path / "caches")
    for name, alone, *found in zip(CASES, one_process, *ranks, strict=True):
        assert len(alone) > 40
        for expected, value in zip(alone, found[0], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9, msg=name)
        for state in found[1:]:  # the others have the weights and statistics of rank 0, to the bit
            same = found[0][-len(state) :]
            assert all(torch.equal(value, own) for value, own in zip(same, state, strict=True)), name

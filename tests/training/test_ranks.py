"""A step of several processes has the loss, the gradient and the statistics of one process on the whole batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed

from dmlcore.data.dataset import PreparedDataset
from dmlcore.metrics.evaluation import evaluate_pairs
from dmlcore.metrics.inputs import Settings, build_pairs
from dmlcore.metrics.pairwise.torch_sweep import TorchSweep
from dmlcore.training.ranks import Ranks, evaluate_shared, follow_evaluation
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

MEMORY = 2**24  # bytes, of which a tile of 544 x 544 pairs takes what a sweep gives it


def rows(count: int = 1200) -> dict[str, Any]:
    random = np.random.default_rng(5)
    labels = random.integers(0, 60, count)
    embeddings = random.normal(size=(60, 8))[labels] + random.normal(size=(count, 8))
    return {"embeddings": embeddings.astype(np.float32), "labels": labels}


EVALUATIONS: dict[str, dict[str, Any]] = {
    "all": rows(),
    "query, gallery and groups": rows()
    | {"is_query": np.arange(1200) % 3 == 0, "groups": np.arange(1200) % 5},
}
STEPS, EVALUATED = slice(len(CASES)), slice(len(CASES), None)


def all_cases(rank: int, size: int, folder: Path, caches: Path) -> list[list[Tensor]]:
    """Return, of each case, the loss, the gradients of all parameters and the state of the network after two steps.

    And the numbers of an evaluation of each kind.
    """
    torch.set_num_threads(1)
    ranks = Ranks(rank, size, tell)
    steps = [_two_steps(ranks, changes, folder, caches) for changes in CASES.values()]
    return [*steps, *(evaluated(ranks, given) for given in EVALUATIONS.values())]


def tell(method: str, argument: Any) -> None:
    """Tell the others over the process group, where a trial takes their stdin."""
    if method == "evaluate":
        distributed.broadcast_object_list([json.dumps(argument)])


def evaluated(ranks: Ranks, given: dict[str, Any]) -> list[Tensor]:
    if ranks.size == 1:
        with torch.inference_mode():
            rows = [given.get(name) for name in ("embeddings", "labels", "is_query")]
            pairs = build_pairs(*rows, CPU, groups=given.get("groups"))
            found = evaluate_pairs(pairs, TorchSweep(pairs, MEMORY // 4 * 3), Settings(memory_bytes=MEMORY))
    elif ranks.leads:
        found = evaluate_shared(ranks, CPU, given, {"memory_bytes": MEMORY})
    else:
        told: list[Any] = [None]
        distributed.broadcast_object_list(told)
        follow_evaluation(ranks, CPU, json.loads(told[0]))
        return []
    arrays = (found.frr, found.far, found.utility, found.thresholds)
    metrics = torch.tensor([found.metrics[name] for name in sorted(found.metrics)], dtype=torch.float64)
    return [metrics, *(torch.as_tensor(array) for array in arrays)]


def _two_steps(ranks: Ranks, changes: dict[str, Any], folder: Path, caches: Path) -> list[Tensor]:
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
    return all_cases(0, 1, small_data.folder, tmp_path_factory.mktemp("caches"))


@pytest.mark.parametrize("size", [2, 4])
def test_a_step_of_several_processes_is_that_of_one(small_data, tmp_path, one_process, size):
    ranks = on_ranks(all_cases, size, tmp_path, small_data.folder, tmp_path / "caches")
    steps, evaluations = ([results[part] for results in (one_process, *ranks)] for part in (STEPS, EVALUATED))
    for name, alone, *found in zip(EVALUATIONS, *evaluations, strict=True):
        assert len(alone[0]) > 15
        for expected, value in zip(alone, found[0], strict=True):
            assert torch.equal(value.nan_to_num(-1.0), expected.nan_to_num(-1.0)), name
    for name, alone, *found in zip(CASES, *steps, strict=True):
        assert len(alone) > 40
        for expected, value in zip(alone, found[0], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9, msg=name)
        for state in found[1:]:  # the others have the weights and statistics of rank 0, to the bit
            same = found[0][-len(state) :]
            assert all(torch.equal(value, own) for value, own in zip(same, state, strict=True)), name

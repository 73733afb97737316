"""evaluate() as a metric of torchmetrics: batches, ranks and their order do not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dmlcore.metrics import evaluate
from tests.ranks import on_ranks

pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")

from dmlcore.metrics.torchmetrics import ThresholdConsistency

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "lightning.md"
SETTINGS = {"far_range": (0.05, 0.3), "ks": (1, 3)}


def images(number: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(number) % 7
    centers = torch.randn(7, 8, generator=generator)
    return centers[labels] + torch.randn(number, 8, generator=generator), labels


def updated(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> ThresholdConsistency:
    metric = ThresholdConsistency("test/", SETTINGS)
    for batch in batches:
        metric.update(*batch)
    return metric


def on_a_rank(rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """Uneven shares: 11 rows in two batches on the first rank, the others in one on the second."""
    x, y = images()
    batches = [(x[:5], y[:5]), (x[5:11], y[5:11])] if rank == 0 else [(x[11:], y[11:])]
    return updated(batches).compute()


def test_it_is_evaluate_whatever_the_batches():
    x, y = images()
    found = updated([(x, y)]).compute()
    want = evaluate(x.numpy(), y.numpy(), **SETTINGS).metrics
    assert {name.removeprefix("test/") for name in found} == set(want)
    for name, value in want.items():
        assert found[f"test/{name}"].dim() == 0
        assert float(found[f"test/{name}"]) == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    again = updated([(x[part], y[part]) for part in order.split(13)]).compute()
    assert all(np.array_equal(again[name], found[name], equal_nan=True) for name in found)


def test_ranks_do_not_matter(tmp_path):
    found = updated([images()]).compute()
    for result in on_ranks(on_a_rank, 2, tmp_path):
        assert result.keys() == found.keys()
        assert all(np.array_equal(result[name], found[name], equal_nan=True) for name in found)


def test_reset_forgets():
    x, y = images()
    metric = updated([(x * -1, y)])
    metric.reset()
    metric.update(x, y)
    want = updated([(x, y)]).compute()
    assert float(metric.compute()["test/opis"]) == float(want["test/opis"])


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")  # theirs, of what is refused here
def test_half_precision_and_a_bad_batch():
    x, y = images()
    assert updated([(x.half(), y)]).compute()["test/recall_at_1"] <= 1
    metric = ThresholdConsistency()
    with pytest.raises(ValueError, match="has seen no batch"):
        metric.compute()
    with pytest.raises(ValueError, match=r"embeddings must be a float tensor \[B, D\]"):
        metric.update(y, y)
    with pytest.raises(ValueError, match=r"labels must be an integer tensor \[B\] = \[60\]"):
        metric.update(x, x[:, 0])
    with pytest.raises(ValueError, match="has no setting `is_query`"):
        ThresholdConsistency(settings={"is_query": [True]})


def test_the_code_of_its_page_runs():
    blocks = PAGE.read_text(encoding="utf-8").split("```py\n")[1:]
    names: dict[str, object] = {}
    exec(compile(blocks[0].split("```")[0], PAGE.name, "exec"), names)
    assert float(names["results"]["validation/recall_at_1"]) > 0.1

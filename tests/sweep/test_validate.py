"""Before a sweep, each distinct loss takes two steps: what would fail in training is refused with its cell."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from dmlcore.config.base import ConfigError
from dmlcore.losses import LOSSES, REGULARIZERS, build_loss
from dmlcore.losses.base import MetricLoss
from dmlcore.sweep.grid import expand
from dmlcore.sweep.validate import check_cells
from tests.sweep.sweeps import sweep_config


def check(loss, **train):
    config = sweep_config(losses={"it": {"loss": loss, "train": train}}, regularizers=[[]])
    check_cells(expand(config))


def memory(size):
    inner = {"name": "ContrastiveLoss", "neg_margin": 0.7}
    return {"name": "pml:CrossBatchMemory", "params": {"loss": inner, "memory_size": size}}


def refused(loss, words, **train):
    with pytest.raises(ConfigError, match=rf"sweep cell \[.*{re.escape(words)}"):
        check(loss, **train)


def test_a_loss_that_fails_in_its_second_step():
    refused(
        {"name": "pml:DynamicSoftMarginLoss"},
        "the loss 'pml:DynamicSoftMarginLoss' fails in step 2 of training: ",
    )


def test_a_memory_smaller_than_a_batch():
    words = "`memory_size` must be at least the batch size (16), got 8; raise it, or make the batches smaller"
    refused(memory(8), words)
    check(memory(16))


def test_a_memory_smaller_than_a_batch_that_is_too_large_to_be_tried():
    refused(memory(600), "must be at least the batch size (2048), got 600", batch_size=2048)
    check(memory(600), batch_size=2048, batch_limit="classes")


def test_a_memory_within_several_losses():
    both = {"losses": [memory(8)["params"] | {"name": "CrossBatchMemory"}, {"name": "CircleLoss"}]}
    refused({"name": "pml:MultipleLosses", "params": both}, "must be at least the batch size (16), got 8")


def test_a_memory_is_refused_without_a_sweep_too():
    loss = build_loss("pml:CrossBatchMemory", num_classes=4, embedding_dim=3, **memory(4)["params"])
    with pytest.raises(ValueError, match=r"`memory_size` must be at least the batch size \(5\), got 4"):
        loss(torch.ones(5, 3), torch.arange(5))


class Counting(MetricLoss):
    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self.counter = itertools.count(start)

    def compute(self, embeddings, labels):
        assert next(self.counter) < 1
        return embeddings.sum()


class Remembering(Counting):
    def compute(self, embeddings, labels):
        return embeddings.sum() * next(self.counter)


def test_a_loss_of_the_user(monkeypatch):
    monkeypatch.setitem(LOSSES, "counting", Counting)
    refused({"name": "counting"}, "the loss 'counting' fails in step 2 of training: AssertionError")
    refused({"name": "counting", "params": {"start": 1}}, "fails in step 1 of training")


def test_a_loss_whose_state_cannot_be_stored(monkeypatch):
    monkeypatch.setitem(LOSSES, "remembering", Remembering)
    refused({"name": "remembering"}, "`base.counter` of the loss is a count, which cannot be stored as data")


@pytest.mark.parametrize("loss", ["recall_at_k", "proxy_gml", "pml:FastAPLoss"])
def test_what_trains_passes(loss):
    check({"name": loss})
    check({"name": loss}, batch_size=4, images_per_class=4)
    check({"name": loss}, batch_size=600, batches="random")


class Tallying(MetricLoss):
    calls = 0

    def __init__(self) -> None:
        super().__init__()

    def compute(self, embeddings, labels):
        Tallying.calls += 1
        return embeddings.sum()


class Failing(MetricLoss):
    def __init__(self) -> None:
        super().__init__()

    def compute(self, embeddings, labels):
        raise ArithmeticError("too large")


def test_each_part_is_tried_once_and_the_one_that_fails_is_named(monkeypatch):
    monkeypatch.setitem(REGULARIZERS, "failing", Failing)
    monkeypatch.setitem(LOSSES, "tallying", Tallying)
    losses = {"it": {"loss": {"name": "tallying"}}}
    check_cells(expand(sweep_config(losses=losses, seeds=[0, 1], regularizers=[[], [{"name": "tcm"}]])))
    assert Tallying.calls == 2  # the two steps of one check, for four cells
    config = sweep_config(losses=losses, regularizers=[[{"name": "tcm"}, {"name": "failing"}]])
    with pytest.raises(ConfigError, match=r"the loss 'failing' fails in step 1 of training: ArithmeticError"):
        check_cells(expand(config))


def test_parts_that_do_not_go_together_are_refused():
    config = sweep_config(
        regularizers=[[{"name": "tcm"}, {"name": "tcm", "params": {"positive_margin": 0.7}}]]
    )
    with pytest.raises(ConfigError, match="each regulariser once"):
        check_cells(expand(config))
    with pytest.raises(ConfigError, match="needs at least one regulariser"):
        check_cells(expand(sweep_config(losses={"it": {"loss": {"name": "none"}}}, regularizers=[[]])))

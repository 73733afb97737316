"""A loss may keep any state on its object: a checkpoint stores it, or names the attribute that it cannot store."""

from __future__ import annotations

import itertools
import json
import random
from collections import OrderedDict, deque

import numpy as np
import pytest
import torch
from torch import nn

from dmlcore.losses import LOSSES, build_loss
from dmlcore.losses.base import MetricLoss
from dmlcore.losses.pml import pml_losses
from dmlcore.training.loss_state import LossState, LossStateError
from tests.losses.test_pml import BALANCED, NEEDED

CPU = torch.device("cpu")
LABELS = torch.tensor(BALANCED)
QUIET = ("ignore:Using a non-tuple sequence", "ignore:__array_wrap__", "ignore:Values of Tp or Tn")


class Queue:
    """A helper of a user's loss: no module, changed in place."""

    def __init__(self, size):
        self.rows, self.position = torch.zeros(size, 5), 0

    def put(self, rows):
        for row in rows.detach():
            self.rows[self.position] = row
            self.position = (self.position + 1) % len(self.rows)


class Counter:
    def __init__(self):
        self.steps = 0


class Keeper(MetricLoss):
    """Keeps its state in as many ways as a user may think of; each of them changes the loss."""

    shared = []

    def __init__(self):
        super().__init__()
        self.shared.clear()
        self.proxies = nn.Parameter(torch.ones(6, 5))
        self.every = [self.proxies]
        self.queue, self.parts = Queue(7), [Counter(), {"deep": Counter()}]
        self.same = self.queue.rows
        self.recent: deque[float] = deque(maxlen=3)
        self.seen, self.by_class, self.order = set(), {}, OrderedDict(a=1.0)
        self.array, self.number, self.warm, self.name = np.zeros(3), np.float64(0.5), False, "cold"
        self.random, self.numbers = random.Random(3), np.random.default_rng(4)
        self.noise = torch.Generator().manual_seed(5)
        self.register_buffer("center", None)
        self.register_buffer("grown", torch.zeros(0, 5))
        self.register_buffer("mean", torch.zeros(5), persistent=False)
        count = 0

        def step():
            nonlocal count
            count += 1
            return count

        self.step, self.bound = step, self.queue.put

    def compute(self, embeddings, labels):
        x = embeddings.detach()
        self.bound(x)
        self.parts[1]["deep"].steps += 2
        self.recent.append(float(x.mean()))
        self.seen |= set(labels.tolist()[: self.step()])
        self.by_class[int(labels[0])] = (float(x.sum()), [x[0].clone()])
        self.order["b"] = self.order["a"] = self.order["a"] / 3
        self.array += x.numpy()[0, 0]
        self.number = self.number * self.array.dtype.type(0.9)
        self.shared.append(1)
        self.center = x.mean(0) if self.center is None else self.center * 0.5 + x.mean(0)
        self.grown = torch.cat([self.grown, x[:1]])
        self.mean.add_(x[0])
        if self.warm:
            self.name, self.extra = "warm", x.T.clone()
        self.warm = True
        held = [
            sum(self.recent),
            len(self.seen),
            len(self.by_class),
            self.parts[1]["deep"].steps,
            len(self.shared),
        ]
        held += [
            sum(self.order.values()),
            self.array.sum(),
            float(self.number),
            self.random.random(),
            len(self.name),
        ]
        held += [self.numbers.normal(), float(torch.rand((), generator=self.noise)), len(self.grown)]
        pull = self.center.sum() + self.mean.sum() + self.same.sum() + self.grown.sum()
        pull = pull + (self.extra.sum() if hasattr(self, "extra") else 0)
        return (embeddings @ self.proxies.T).square().mean() * float(np.sum(np.square(held))) + (
            embeddings * pull
        ).mean()


def batches(count):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(12, 5, generator=generator) for _ in range(count)]


def values(loss, parts):
    torch.manual_seed(0)
    return [float(loss(part.clone().requires_grad_(), LABELS).detach()) for part in parts]


def after_resume(build, parts, stop):
    """The values of a loss that is built anew after `stop` batches and gets what the first one held."""
    first = build()
    state = LossState(first)
    before = values(first, parts[:stop])
    tree, tensors = state.save()
    second = build()
    LossState(second).load(json.loads(json.dumps(tree)), tensors, CPU)
    return before + values(second, parts[stop:])


def whole(build, parts, stop):
    """The same without the interruption; random numbers are keyed anew at `stop`, as they are in each epoch."""
    loss = build()
    return values(loss, parts[:stop]) + values(loss, parts[stop:])


@pytest.mark.parametrize("stop", [0, 1, 2, 5])
def test_whatever_a_loss_holds_is_there_after_a_resume(stop):
    parts = batches(8)
    assert after_resume(Keeper, parts, stop) == whole(Keeper, parts, stop)


def test_what_was_one_object_stays_one():
    first, second = Keeper(), Keeper()
    state = LossState(first)
    values(first, batches(3))
    LossState(second).load(*state.save(), CPU)
    assert second.same is second.queue.rows
    assert second.every[0] is second.proxies
    assert torch.equal(second.same, first.same)


@pytest.mark.filterwarnings(*QUIET)
@pytest.mark.parametrize("name", sorted({*LOSSES} | {f"pml:{name}" for name in pml_losses()}))
def test_every_loss_that_can_be_named_can_be_stored(name):
    def build():
        torch.manual_seed(1)
        params = NEEDED.get(name.removeprefix("pml:"), {})
        return build_loss(name, num_classes=6, embedding_dim=5, **params)

    parts = batches(4)
    if name == "pml:DynamicSoftMarginLoss":
        with pytest.raises(
            LossStateError, match=r"`loss.hist_` of the loss is a tensor that requires gradients"
        ):
            after_resume(build, parts, 1)
    else:
        assert after_resume(build, parts, 2) == whole(build, parts, 2)


class Slots:
    __slots__ = ("number",)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (itertools.count(), "is a count, which cannot be stored as data"),
        (Slots(), "is a Slots, which cannot be stored as data"),
        ({1, (2, 3)}, "is a set of other things"),
        ({(1, 2): 3}, "is a dict whose keys"),
        (torch.zeros(1).expand(4), "expanded tensor"),
        (torch.zeros(3).to_sparse(), "sparse"),
        (torch.zeros(3, requires_grad=True) * 2, "store it with .detach()"),
        (np.array([None]), "is an array of dtype object"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_its_name(value, words):
    loss = Keeper()
    loss.parts.append({"strange": value})
    with pytest.raises(LossStateError) as caught:
        LossState(loss).save()
    assert "`parts.2.strange` of the loss" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["queue", "step", "random"])
def test_an_object_that_the_constructor_did_not_make_is_refused(name):
    loss = Keeper()
    state = LossState(loss)
    setattr(loss, name, getattr(Keeper(), name))
    with pytest.raises(
        LossStateError, match=f"`{name}` of the loss is a .* that was created after the constructor"
    ):
        state.save()


def test_a_view_of_another_tensor_is_refused():
    loss = Keeper()
    loss.half = loss.mean[:2]
    with pytest.raises(LossStateError, match=r"shares its memory with"):
        LossState(loss).save()


class Own(Keeper):
    """Says itself what it needs."""

    def __init__(self):
        super().__init__()
        self.counter = itertools.count()

    def compute(self, embeddings, labels):
        return embeddings.mean() * next(self.counter)

    def get_extra_state(self):
        return {"next": int(repr(self.counter)[6:-1])}

    def set_extra_state(self, state):
        self.counter = itertools.count(state["next"])


def test_a_class_may_say_itself_what_it_needs():
    parts = batches(5)
    first, second = Own(), Own()
    state = LossState(first)
    before = values(first, parts[:2])
    LossState(second).load(*state.save(), CPU)
    assert before + values(second, parts[2:]) == values(Own(), parts)


def test_a_checkpoint_of_another_loss_is_refused():
    tree, tensors = LossState(Keeper()).save()
    with pytest.raises(LossStateError, match="does not match the loss"):
        LossState(build_loss("supcon", num_classes=2, embedding_dim=5)).load(tree, tensors, CPU)

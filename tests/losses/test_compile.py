"""Compiled without a graph break, and without an operation that waits for a GPU."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from dmlcore.losses.pairs import KERNELS
from tests.losses.cases import COMPONENTS, batch, build, value_and_gradient

pytestmark = pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")


def step(loss, network, images, labels):
    value = loss(network(images), labels)
    value.backward()
    return value.detach(), [parameter.grad for parameter in [*network.parameters(), *loss.parameters()]]


def make(kind, name):
    torch.manual_seed(2)
    network = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 5)).double()
    return build(kind, name), network, torch.randn(10, 4, dtype=torch.float64)


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_step_is_one_graph(kind, name):
    """Value and gradients of a compiled network and loss are those of eager mode; a graph break would raise."""
    torch.compiler.reset()
    labels = batch()[1]
    want = step(*make(kind, name), labels)
    loss, network, images = make(kind, name)
    compiled = torch.compile(lambda x, y: loss(network(x), y), backend="aot_eager", fullgraph=True)
    value = compiled(images, labels)
    value.backward()
    found = (value.detach(), [parameter.grad for parameter in [*network.parameters(), *loss.parameters()]])
    torch.testing.assert_close(found, want)


def test_other_classes_need_no_other_graph():
    """The groups of a batch are data, not part of the graph."""
    torch.compiler.reset()
    loss = build("regularizer", "tcm")
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, backend=counter, fullgraph=True)
    for labels in ([0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [0] * 10, [5, 0, 0, 0, 1, 1, 7, 7, 7, 7]):
        x = batch()[0]
        want = value_and_gradient(loss, x, torch.tensor(labels))
        torch.testing.assert_close(value_and_gradient(compiled, x, torch.tensor(labels)), want)
    assert counter.frame_count == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck's own
@pytest.mark.parametrize(
    ("kernel", "numbers"), [("threshold_consistent_margin", [0.9, 0.5, 1.0, 1.0]), ("smooth_ap", [0.1])]
)
def test_the_operators_keep_the_rules_of_torch(kernel, numbers):
    """No aliases, no mutated inputs, a fake implementation like the real one, gradients that can be traced."""
    x, labels = batch()
    torch.library.opcheck(
        torch.ops.dmlcore.pairwise_loss.default, (x, labels, kernel, numbers, True, kernel != "smooth_ap")
    )


def test_inductor_compiles_a_step():
    torch.compiler.reset()
    loss, network, images = make("regularizer", "tcm")
    labels = batch()[1]
    want = step(*make("regularizer", "tcm"), labels)
    value = torch.compile(lambda x, y: loss(network(x), y), fullgraph=True)(images, labels)
    value.backward()
    torch.testing.assert_close((value.detach(), [p.grad for p in network.parameters()]), want)


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_step_never_waits_for_a_gpu(kind, name, monkeypatch):
    """Tensors on the meta device have no data: whatever would wait for some raises. Labels come from the CPU."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    loss = build(kind, name).to("meta")
    x, labels = batch()
    embeddings = x.detach().to("meta").requires_grad_()
    loss(embeddings, labels).backward()
    assert embeddings.grad.shape == x.shape


def test_every_kernel_is_registered():
    assert set(KERNELS) >= {"threshold_consistent_margin", "smooth_ap", "recall_at_k", "circle"}

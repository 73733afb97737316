"""Second derivatives: right for every loss, or refused in words; never silently those of a constant."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.losses.cases import COMPONENTS, WIDTH, batch, build

REFUSED = ("circle",)
ONCE_MORE = pytest.mark.parametrize(
    ("kind", "name"), [part for part in COMPONENTS if part[1] not in REFUSED], ids=lambda part: part
)


def network() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, WIDTH)).double()


def inputs() -> Tensor:
    return torch.randn(10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


def penalty(loss: nn.Module, model: nn.Module) -> Tensor:
    """The squared gradient of the loss by the images."""
    images = inputs().requires_grad_()
    value = loss(model(images), batch()[1])
    return torch.autograd.grad(value, images, create_graph=True)[0].square().sum()


@ONCE_MORE
def test_a_gradient_penalty_through_a_network_has_the_right_gradient(kind, name):
    """-0.0121 for -0.0216, when the gradient of the loss was taken for a constant."""
    loss, model = build(kind, name), network()
    weight = model[0].weight
    found = torch.autograd.grad(penalty(loss, model), weight)[0]
    step = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        weight += 1e-6 * step
    above = penalty(loss, model).detach()
    with torch.no_grad():
        weight -= 2e-6 * step
    slope = (above - penalty(loss, model).detach()) / 2e-6
    torch.testing.assert_close((found * step).sum(), slope, rtol=1e-4, atol=1e-6)


@ONCE_MORE
def test_second_derivatives_are_those_of_finite_differences(kind, name):
    loss = build(kind, name)
    embeddings, labels = batch()
    assert torch.autograd.gradgradcheck(lambda x: loss(x, labels), (embeddings,), atol=1e-4, fast_mode=True)


@ONCE_MORE
def test_torch_func_agrees_with_autograd(kind, name):
    loss = build(kind, name)
    embeddings, labels = batch()
    first = torch.autograd.grad(loss(embeddings, labels), embeddings, create_graph=True)[0]
    once = torch.func.grad(lambda x: loss(x, labels))
    assert torch.equal(once(embeddings.detach()), first)
    second = torch.autograd.grad(first.square().sum(), embeddings)[0]
    twice = torch.func.grad(lambda x: once(x).square().sum())
    torch.testing.assert_close(twice(embeddings.detach()), second)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_the_gradient_of_its_value_is_refused_a_second_time(name):
    loss = build("loss", name)
    embeddings, labels = batch()
    first = torch.autograd.grad(loss(embeddings, labels), embeddings, create_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss(embeddings, labels), embeddings)[0])
    with pytest.raises(NotImplementedError, match=r"has no second derivative: .* Differentiate it once"):
        first.square().sum().backward()
    with pytest.raises(NotImplementedError, match="has no second derivative"):
        torch.func.grad(lambda x: torch.func.grad(loss)(x, labels).square().sum())(embeddings.detach())


@pytest.mark.parametrize("name", ["supcon", "smooth_ap"])
def test_a_third_derivative_is_refused(name):
    loss = build("loss", name)
    embeddings, labels = batch()
    first = torch.autograd.grad(loss(embeddings, labels), embeddings, create_graph=True)[0]
    second = torch.autograd.grad(first[0, 0], embeddings, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="third derivative"):
        second.sum().backward()

"""Value and gradient of each loss against its naive float64 reference."""

from __future__ import annotations

import pytest
import torch

from tests.losses.cases import CASES, COMPONENTS, batch, build

ALL_SETTINGS = [
    (kind, name, setting) for kind, name in COMPONENTS for setting in range(len(CASES[name].settings))
]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def test_nothing_lacks_a_reference() -> None:
    assert set(CASES) == {name for _, name in COMPONENTS}
    assert all(case.settings for case in CASES.values())


@pytest.mark.parametrize(("kind", "name", "setting"), ALL_SETTINGS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_equals_the_naive_reference(
    kind: str, name: str, setting: int, dtype: torch.dtype, device: str
) -> None:
    loss = build(kind, name, dtype, setting).to(device)
    embeddings, labels = (tensor.detach().to(device) for tensor in batch(dtype))
    embeddings.requires_grad_()
    value = loss(embeddings, labels)
    tensors = [embeddings, *loss.parameters()]
    gradients = torch.autograd.grad(value, tensors)

    learned = {
        key: tensor.detach().double().cpu().requires_grad_() for key, tensor in loss.named_parameters()
    }
    oracle = embeddings.detach().double().cpu().requires_grad_()
    expected = CASES[name].reference(oracle, labels.tolist(), **learned, **CASES[name].settings[setting])
    expected_gradients = torch.autograd.grad(expected, [oracle, *learned.values()])

    assert expected.item() != 0, "the batch must exercise the loss"
    for got, want in zip((value, *gradients), (expected, *expected_gradients), strict=True):
        largest = max(want.abs().max().item(), 1.0)
        torch.testing.assert_close(got.double().cpu(), want, rtol=0, atol=TOLERANCE[dtype] * largest)


DIFFERENTIABLE = [
    pair for pair in COMPONENTS if pair[1] != "circle"
]  # its weights are constants by definition


@pytest.mark.parametrize(("kind", "name"), DIFFERENTIABLE)
def test_gradient_is_that_of_the_value(kind: str, name: str) -> None:
    loss = build(kind, name)
    embeddings, labels = batch()

    def value(vectors: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return loss(vectors, labels)

    assert torch.autograd.gradcheck(value, (embeddings, *loss.parameters()))


def test_proxy_anchor_gradient_formula() -> None:
    """dL/ds = -a h+ / (1 + sum h+) / #P+ for positives and a h- / (1 + sum h-) / #P for negatives."""
    from dmlcore.losses.proxy_anchor import proxy_anchor

    alpha, margin = 32.0, 0.1
    similarities = torch.linspace(-0.3, 0.4, 15, dtype=torch.float64).reshape(5, 3).requires_grad_()
    labels = torch.tensor([0, 0, 1, 0, 1])
    (gradient,) = torch.autograd.grad(proxy_anchor(similarities, labels, alpha, margin), similarities)

    own = labels.unsqueeze(1) == torch.arange(3)
    s = similarities.detach()
    near = (-alpha * (s - margin)).exp() * own
    far = (alpha * (s + margin)).exp() * ~own
    expected = -alpha * near / (1 + near.sum(0)) / 2 + alpha * far / (1 + far.sum(0)) / 3
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)

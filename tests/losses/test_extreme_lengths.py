"""Embeddings of any finite length: the loss of their directions, a finite gradient; ordinary rows keep their bits."""

from __future__ import annotations

import pytest
import torch

from dmlcore.losses.base import normalize, row_lengths
from tests.losses.cases import CASES, COMPONENTS, WIDTH, batch, build, value_and_gradient

LENGTHS = (1e-45, 1e-30, 1e-19, 1e-13, 1e19, 1e20, 1e30, 1e38, 3e38)
COSINES = [part for part in COMPONENTS if not CASES[part[1]].length_bound]


def scaled(length: float, rows: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch whose first rows (None: all) have a largest entry of `length`, and what it is in float64."""
    embeddings, _ = batch(torch.float32)
    vectors = embeddings.detach().clone()
    peaks = vectors[:rows].double().abs().amax(dim=1, keepdim=True)
    vectors[:rows] = (vectors[:rows].double() / peaks * length).float()
    return vectors.requires_grad_(), vectors.detach().double()


@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("kind", "name"), COSINES)
def test_a_loss_sees_the_directions_of_rows_of_any_length(kind, name, length, rows):
    if length == 1e-45:  # such rows are all of one entry: subnormal numbers hold no direction
        rows = 0
    embeddings, exact = scaled(length, rows)
    value, gradient = value_and_gradient(build(kind, name, torch.float32), embeddings, batch()[1])
    lengths = exact.norm(dim=1, keepdim=True)
    units = (exact / lengths).requires_grad_()
    want, want_gradient = value_and_gradient(build(kind, name), units, batch()[1])
    torch.testing.assert_close(value.double(), want, rtol=1e-4, atol=1e-5)
    assert gradient.isfinite().all()
    kept = ((lengths > 1e-31) & (lengths < 3e38)).squeeze(1)  # beyond, a gradient is no float32
    along = gradient.double() * lengths
    size = float(want_gradient.abs().max())
    torch.testing.assert_close(along[kept], want_gradient[kept], rtol=1e-3, atol=2e-4 * size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ordinary_rows_keep_their_bits_beside_extreme_ones(dtype):
    ordinary = torch.randn(50, 64, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = torch.randn(50, 64, dtype=dtype, generator=torch.Generator().manual_seed(2))
    extreme = torch.tensor([[0.0], [1e-30], [1e30]], dtype=dtype).expand(3, 64)
    alone = ordinary / row_lengths(ordinary)
    beside = normalize(torch.cat([ordinary, extreme]))[:50]
    assert torch.equal(beside, alone)
    gradients = [torch.autograd.grad((units * weights).sum(), ordinary)[0] for units in (alone, beside)]
    assert torch.equal(*gradients)


def test_half_precision_outside_a_loss_is_normalised_as_before():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.bfloat16)
    assert torch.equal(normalize(vectors), (vectors / torch.tensor([[5.0], [1.0]])).bfloat16())


def test_a_row_that_is_not_finite_is_not_hidden():
    vectors = torch.ones(3, WIDTH)
    vectors[1, 0], vectors[2, 0] = torch.inf, torch.nan
    units = normalize(vectors)
    assert units[0].isfinite().all()
    assert units[1].isnan().any()
    assert units[2].isnan().all()


@pytest.mark.parametrize("rows", [None, 3, 7])
@pytest.mark.parametrize("length", [1e16, 1e18, 3e18])
def test_the_distances_of_long_rows_are_those_of_float64(length, rows):
    """Lifted structure squares differences of distances: from 1e19 on its value is no float32."""
    embeddings, exact = scaled(length, rows)
    found = value_and_gradient(build("loss", "lifted_structure", torch.float32), embeddings, batch()[1])
    want = value_and_gradient(build("loss", "lifted_structure"), exact.requires_grad_(), batch()[1])
    for part, whole in zip(found, want, strict=True):
        torch.testing.assert_close(part.double(), whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize("length", [1e20, 1e30])
def test_long_rows_far_from_other_classes_have_no_lifted_loss(length):
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 1e-3], [-1.0, 0.0], [-1.0, 1e-3]]) * length
    labels = torch.tensor([0, 0, 1, 1])
    value, gradient = value_and_gradient(
        build("loss", "lifted_structure", torch.float32), embeddings.requires_grad_(), labels
    )
    assert value == 0
    assert not gradient.any()
    apart = value_and_gradient(
        build("loss", "lifted_structure", torch.float32), embeddings, torch.tensor([0, 1, 0, 1])
    )
    assert apart[0] == torch.inf  # 1e40 and more is no float32, and is not called NaN or 0

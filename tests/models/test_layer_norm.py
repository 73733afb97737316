"""Normalisation in the head, of features of any finite length."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dmlcore.models import build_head


def ordinary() -> torch.Tensor:
    return torch.randn(6, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("length", [1e-30, 1e20, 1e30, 1e38])
def test_huge_and_tiny_features_give_what_float64_gives(length):
    features = (ordinary() / ordinary().abs().max() * length).requires_grad_()
    layer = build_head(32, normalization="layer_norm", embedding_dim=4).normalization
    found = layer(features)
    want = nn.functional.layer_norm(features.detach().double(), (32,))
    torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-6)
    found[:, 0].sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_ordinary_features_keep_their_bits_beside_huge_ones(dtype):
    features = ordinary().to(dtype)
    beside = features.clone()
    beside[3] = torch.finfo(dtype).max
    layer = build_head(32, normalization="layer_norm", embedding_dim=4).normalization.to(dtype)
    rows = [0, 1, 2, 4, 5]
    assert torch.equal(layer(beside)[rows], nn.functional.layer_norm(features, (32,))[rows])
    assert layer.state_dict().keys() == nn.LayerNorm(32).state_dict().keys()


@pytest.mark.parametrize("length", [1e-2, 1e20, 1e30, 1e38])
def test_batch_normalisation_of_huge_columns_is_that_of_float64(length):
    features = ordinary()
    features[:, :5] *= length / features[:, :5].abs().max()
    layer = build_head(32, normalization="batch_norm", embedding_dim=4).normalization
    wide, plain = nn.BatchNorm1d(32).double(), nn.BatchNorm1d(32)
    found = layer(features.requires_grad_())
    torch.testing.assert_close(found.double(), wide(features.detach().double()), rtol=1e-5, atol=1e-5)
    found[:, 0].sum().backward()
    assert features.grad.isfinite().all()
    largest = torch.finfo(torch.float32).max
    torch.testing.assert_close(layer.running_mean.double(), wide.running_mean, rtol=1e-5, atol=length * 1e-6)
    torch.testing.assert_close(
        layer.running_var.double(), wide.running_var.clamp(max=largest), rtol=1e-6, atol=0
    )
    with torch.no_grad():
        plain(features)
    for name in ("running_mean", "running_var"):
        assert torch.equal(getattr(layer, name)[5:], getattr(plain, name)[5:])
    assert layer.eval()(features).isfinite().all()
    assert layer.state_dict().keys() == plain.state_dict().keys()

"""The head: pooling, normalisation, projection."""

from __future__ import annotations

import pytest
import torch

from dmlcore.models import NORMALIZATIONS, POOLINGS, GeneralizedMean, build_backbone, build_embedder

SMALL = {"channels": [8, 16, 16, 16], "stem_type": "", "stem_width": 8}


def backbone():
    return build_backbone("resnet10t", arguments=SMALL, in_channels=1)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_embeddings_have_the_width_asked_for_and_gradients_reach_all(pooling, normalization):
    model = build_embedder(backbone(), pooling=pooling, normalization=normalization, embedding_dim=6)
    embeddings = model(torch.randn(4, 1, 64, 64))
    assert embeddings.shape == (4, 6)
    embeddings.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_gem_with_exponent_one_is_the_mean_and_grows_towards_the_maximum():
    features = torch.rand(2, 3, 5) + 0.1
    torch.testing.assert_close(GeneralizedMean(exponent=1.0)(features), features.mean(dim=2))
    torch.testing.assert_close(
        GeneralizedMean(exponent=100.0)(features), features.amax(dim=2), rtol=0.02, atol=0.0
    )
    twin = (features.double() ** 3).mean(dim=2) ** (1 / 3)
    torch.testing.assert_close(GeneralizedMean()(features).double(), twin, rtol=1e-5, atol=1e-6)


def test_token_pooling_takes_the_first_token():
    tokens = torch.randn(2, 3, 4)
    torch.testing.assert_close(POOLINGS["token"]()(tokens), tokens[:, :, 0])


def test_frozen_batch_norm_keeps_its_statistics():
    model = build_embedder(
        backbone(), pooling="average", normalization="batch_norm", embedding_dim=6, freeze_batch_norm=True
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()(torch.randn(4, 1, 32, 32))
    moved = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert moved  # the head's own BatchNorm learns
    assert not any("backbone" in key for key in moved)


def test_unknown_parts_are_refused():
    with pytest.raises(ValueError, match=r"model\.pooling"):
        build_embedder(backbone(), pooling="max", normalization="none", embedding_dim=6)


def test_channels_last_changes_the_layout_and_not_the_numbers():
    torch.manual_seed(0)
    plain = build_embedder(backbone(), pooling="average", normalization="none", embedding_dim=6).eval()
    laid_out = build_embedder(
        backbone(), pooling="average", normalization="none", embedding_dim=6, channels_last=True
    ).eval()
    laid_out.load_state_dict(plain.state_dict())
    images = torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(laid_out(images), plain(images), rtol=1e-4, atol=1e-5)
    filters = next(p for p in laid_out.parameters() if p.dim() == 4 and p.shape[1] > 1)
    assert filters.is_contiguous(memory_format=torch.channels_last)

"""Gradient replay: the gradient of the whole batch, one chunk of graph at a time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dmlcore.losses import build_loss, build_regularizer
from dmlcore.training.gradient_cache import backward, check_chunks
from dmlcore.training.loader import Batch

LABELS = torch.arange(24) // 4


def network(dropout=0.0):
    torch.manual_seed(0)
    layers = [nn.Linear(10, 20), nn.LayerNorm(20), nn.GELU(), nn.Dropout(dropout), nn.Linear(20, 6)]
    return nn.Sequential(*layers).double()


def gradients(chunk_size, name="smooth_ap", model=None):
    model = model or network()
    torch.manual_seed(3)
    loss = build_loss(name, num_classes=6, embedding_dim=6).double()
    tcm = build_regularizer("tcm", num_classes=6, embedding_dim=6)
    inputs = torch.randn(24, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    batch = Batch(len(inputs), lambda rows: inputs[rows])
    terms = backward(
        model,
        batch,
        lambda x: {"base": loss(x, LABELS), "tcm": tcm(x, LABELS)},
        chunk_size,
    )
    parameters = [*model.parameters(), *loss.parameters()]
    return terms, [parameter.grad.clone() for parameter in parameters]


@pytest.mark.parametrize("name", ["smooth_ap", "recall_at_k", "proxy_anchor", "multi_similarity"])
@pytest.mark.parametrize("chunk_size", [4, 7, 23])
def test_chunks_give_the_gradient_of_the_whole_batch(name, chunk_size):
    whole, expected = gradients(None, name)
    terms, found = gradients(chunk_size, name)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * float(other.abs().max()))
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(
        {name: float(term) for name, term in whole.items()}, abs=1e-12
    )


def test_the_gradient_is_not_the_mean_over_chunks():
    _, expected = gradients(None)
    model = network()
    inputs = torch.randn(24, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    loss = build_loss("smooth_ap", num_classes=6, embedding_dim=6)
    for rows in (slice(0, 12), slice(12, 24)):
        (loss(model(inputs[rows]), LABELS[rows]) / 2).backward()
    first = next(model.parameters()).grad
    assert float((first - expected[0]).abs().max()) > 1e-3 * float(expected[0].abs().max())


def test_dropout_is_the_same_in_both_passes():
    seen = []
    model = network(dropout=0.5)
    model[3].register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    gradients(6, model=model)
    assert len(seen) == 8
    for first, second in zip(seen[:4], seen[4:], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(seen[0], seen[1])


def test_no_more_than_a_chunk_of_graph_is_held():
    sizes = []
    model = network()
    model.register_forward_hook(
        lambda module, inputs, output: sizes.append(len(output) if output.requires_grad else 0)
    )
    gradients(6, model=model)
    assert sizes == [0, 0, 0, 0, 6, 6, 6, 6]


def test_layers_that_mix_the_batch_are_refused():
    mixing = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="freeze_batch_norm"):
        check_chunks(mixing, 8)
    check_chunks(mixing, None)
    check_chunks(network(), 8)

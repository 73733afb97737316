"""TCM: the hand-worked case, its margins, and its equality with a two-margin cosine contrastive loss."""

from __future__ import annotations

import pytest
import torch

from dmlcore.losses import ThresholdConsistentMargin
from tests.losses.cases import batch, value_and_gradient

EMBEDDINGS = torch.tensor([[0, 1], [0.43, 0.9], [1, 0], [0.5, 0.5]])
LABELS = torch.tensor([0, 0, 1, 1])


def test_the_worked_case() -> None:
    # Positive pairs: s = .9 / |(.43, .9)| = .9023 is above .9, so the one violator is (2, 3): s = 1 / sqrt 2.
    positive = 0.9 - 0.5**0.5
    # Negative pairs: (0, 2) 0, (1, 2) .4311 are below .5; (0, 3) and (1, 3) are above.
    negative = ((0.5**0.5 - 0.5) + (0.665 / (0.43**2 + 0.9**2) ** 0.5 / 0.5**0.5 - 0.5)) / 2
    assert round(positive, 4) == 0.1929
    assert round(negative, 3) == 0.325
    assert ThresholdConsistentMargin()(EMBEDDINGS, LABELS).item() == pytest.approx(
        positive + negative, abs=1e-6
    )


@pytest.mark.parametrize(
    ("weights", "share"), [((1.0, 0.0), 0.1929), ((0.0, 1.0), 0.3250), ((2.0, 0.5), 0.5483)]
)
def test_weights(weights: tuple[float, float], share: float) -> None:
    loss = ThresholdConsistentMargin(positive_weight=weights[0], negative_weight=weights[1])
    assert loss(EMBEDDINGS, LABELS).item() == pytest.approx(share, abs=1e-4)


def test_no_violator_gives_zero_with_a_graph() -> None:
    embeddings = torch.tensor([[1.0, 0], [1, 0.01], [0, 1], [0.01, 1]], requires_grad=True)
    value, gradient = value_and_gradient(ThresholdConsistentMargin(), embeddings, LABELS)
    assert value == 0
    assert not gradient.any()


def test_a_margin_of_one_does_not_count_an_image_with_itself() -> None:
    """At a margin of 1 every pair violates, so that the mean is over pairs, not over pairs and images."""
    embeddings = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    loss = ThresholdConsistentMargin(positive_margin=1.0)
    assert loss(embeddings, torch.zeros(3, dtype=torch.long)).item() == pytest.approx(1 - 2 * 0.5**0.5 / 3)


def test_gradient_scales_with_what_follows() -> None:
    embeddings, labels = batch()
    _, gradient = value_and_gradient(ThresholdConsistentMargin(), embeddings, labels)
    (ThresholdConsistentMargin()(embeddings, labels) * -3).backward()
    torch.testing.assert_close(embeddings.grad, -3 * gradient)

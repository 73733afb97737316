"""The batches and loss settings that the loss tests share.

Asymmetric on purpose: classes of 1, 2, 3 and 4 images out of order, embeddings of unequal length.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmlcore.losses import LOSSES, REGULARIZERS, build_loss, build_regularizer
from tests.reference.losses import LOSS_TWINS, REGULARIZER_TWINS

NUM_CLASSES = 6
WIDTH = 5
LABELS = (4, 1, 4, 0, 1, 4, 5, 0, 1, 4)
TEXTS = torch.randn(NUM_CLASSES, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(7))

# The settings under which each is compared with its twin; the first is the one of the property tests.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "arcface": [{}, {"scale": 8.0, "margin": 1.2}],
    "circle": [{}, {"margin": 0.25, "gamma": 16.0}],
    "contrastive": [{}, {"positive_margin": 0.7, "negative_margin": 1.3}],
    "cosface": [{}, {"scale": 8.0, "margin": 0.1}],
    "language_guidance": [{"text_embeddings": TEXTS}, {"text_embeddings": TEXTS, "gamma": 0.3, "omega": 2.0}],
    "lifted_structure": [{}, {"margin": 2.5}],
    "multi_similarity": [{}, {"alpha": 3.0, "beta": 40.0, "base": 0.2, "epsilon": 0.4}],
    "norm_softmax": [{}, {"temperature": 0.3}],
    "proxy_anchor": [{}, {"alpha": 12.0, "margin": 0.3}],
    "proxy_gml": [
        {"proxies_per_class": 2, "ratio": 0.4},
        {"proxies_per_class": 2, "ratio": 0.4, "form": "bce"},
        {"proxies_per_class": 3, "ratio": 0.05, "regularization": 0.0},
    ],
    "proxy_nca_pp": [{}, {"scale": 2.0}],
    "recall_at_k": [
        {},
        {"exclude_query": True},
        {"ks": [1, 3], "temperature": 0.2, "recall_temperature": 0.5},
        {"ks": [1], "temperature": 0.2, "recall_temperature": 20.0},  # flat enough to reach the cap at k
    ],
    "smooth_ap": [{}, {"temperature": 0.2}],
    "soft_triple": [
        {"centers_per_class": 3},
        {"centers_per_class": 1},
        {"centers_per_class": 2, "gamma": 0.5},
    ],
    "supcon": [{}, {"temperature": 0.5}],
    "tcm": [
        {},
        {"positive_margin": 0.3, "negative_margin": -0.2, "positive_weight": 2.0, "negative_weight": 0.3},
    ],
    "triplet": [{}, {"margin": 0.9}],
    "unified_threshold": [{}, {"gamma": 5.0, "weight": 0.3}],
}
BUILDERS = {"loss": build_loss, "regularizer": build_regularizer}
TWINS = {"loss": LOSS_TWINS, "regularizer": REGULARIZER_TWINS}
COMPONENTS = [("loss", name) for name in LOSSES] + [("regularizer", name) for name in REGULARIZERS]

each_component = pytest.mark.parametrize(
    ("kind", "name"), COMPONENTS, ids=[f"{k}-{n}" for k, n in COMPONENTS]
)


def build(
    kind: str, name: str, dtype: torch.dtype = torch.float64, setting: int = 0, **sizes: int
) -> nn.Module:
    """The component with its learned tensors drawn from a fixed seed."""
    torch.manual_seed(3)
    sizes = {"num_classes": NUM_CLASSES, "embedding_dim": WIDTH} | sizes
    return BUILDERS[kind](name, **sizes, **SETTINGS[name][setting]).to(dtype)


def batch(dtype: torch.dtype = torch.float64, labels: tuple[int, ...] = LABELS) -> tuple[Tensor, Tensor]:
    """Embeddings [B, WIDTH] with a graph, lengths from 0.5 to 2, and labels [B]."""
    generator = torch.Generator().manual_seed(11)
    vectors = torch.randn(len(labels), WIDTH, dtype=torch.float64, generator=generator)
    lengths = torch.linspace(0.5, 2, len(labels), dtype=torch.float64).unsqueeze(1)
    return (vectors * lengths).to(dtype).requires_grad_(), torch.tensor(labels)


def value_and_gradient(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Scalar and [B, D]."""
    value = loss(embeddings, labels)
    return value.detach(), torch.autograd.grad(value, embeddings)[0]

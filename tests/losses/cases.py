"""The batches and losses that the loss tests share; the case of each loss is next to its reference.

Asymmetric on purpose: classes of 1, 2, 3 and 4 images out of order, embeddings of unequal length.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dmlcore.losses import LOSSES, REGULARIZERS, build_loss, build_regularizer
from tests.reference import class_losses, pair_losses
from tests.reference.class_losses import NUM_CLASSES
from tests.reference.common import Case

WIDTH = 5
LABELS = (4, 1, 4, 0, 1, 4, 5, 0, 1, 4)

BUILDERS = {"loss": build_loss, "regularizer": build_regularizer}
CASES: dict[str, Case] = pair_losses.CASES | class_losses.CASES
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
    return BUILDERS[kind](name, **sizes, **CASES[name].settings[setting]).to(dtype)


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

"""What the naive references of the losses share: double loops over scalars in float64, written from the papers.

Each takes embeddings [B, D], labels (a list of ints) and the learned tensors by the names of the loss's parameters.
torch is used for its scalars' autograd alone, so that a reference gives the gradient too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Labels = Sequence[int]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Of the normalised vectors."""
    square = 2 - 2 * cosine(a, b)
    return square.sqrt() if square > 1e-12 else 0 * square


def total(terms: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.stack(list(terms)).sum() if terms else 0 * like.sum()


def mean(terms: Sequence[Tensor], like: Tensor) -> Tensor:
    return total(terms, like) / max(len(terms), 1)


def positives(labels: Labels, i: int) -> list[int]:
    return [j for j in range(len(labels)) if j != i and labels[j] == labels[i]]


def negatives(labels: Labels, i: int) -> list[int]:
    return [j for j in range(len(labels)) if labels[j] != labels[i]]


def all_pairs(labels: Labels, kind: Callable[[Labels, int], list[int]]) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(labels)) for j in kind(labels, i)]


def cross_entropy(logits: Sequence[Tensor], target: int) -> Tensor:
    return torch.stack([(logit - logits[target]).exp() for logit in logits]).sum().log()


class Case(NamedTuple):
    """How a loss or regulariser is tested; what holds for most of them is the default.

    `settings`: compared with the reference under each; the first is that of the property tests. `label_bound`: knows
    which label a class has, by its proxies, centres or text. `length_bound`: sees the length of embeddings.
    `needs_positive`: 0 without a positive pair; the others push negatives or move to proxies without one.
    """

    reference: Callable[..., Tensor]
    settings: Sequence[dict[str, Any]] = ({},)
    label_bound: bool = False
    length_bound: bool = False
    needs_positive: bool = False

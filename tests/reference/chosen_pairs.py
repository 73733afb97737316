"""Naive references of the losses of chosen pairs: lists of (anchor, reference), repeated as often as they count.

`x` are the anchors [B, D], `y` the references [R, D], `near` and `far` the lists of positive and negative pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests.reference.common import cosine, cross_entropy, distance, mean, total

Pairs = Sequence[tuple[int, int]]


def threshold_consistent_margin(
    x: Tensor,
    y: Tensor,
    near: Pairs,
    far: Pairs,
    positive_margin=0.9,
    negative_margin=0.5,
    positive_weight=1.0,
    negative_weight=1.0,
) -> Tensor:
    low = [s for s in (cosine(x[i], y[j]) for i, j in near) if s <= positive_margin]
    high = [s for s in (cosine(x[i], y[j]) for i, j in far) if s >= negative_margin]
    pull = mean([positive_margin - s for s in low], x)
    return positive_weight * pull + negative_weight * mean([s - negative_margin for s in high], x)


def contrastive(
    x: Tensor, y: Tensor, near: Pairs, far: Pairs, positive_margin=0.0, negative_margin=1.0
) -> Tensor:
    pull = [distance(x[i], y[j]) - positive_margin for i, j in near]
    push = [negative_margin - distance(x[i], y[j]) for i, j in far]
    return mean([t for t in pull if t > 0], x) + mean([t for t in push if t > 0], x)


def triplet(x: Tensor, y: Tensor, near: Pairs, far: Pairs, margin=0.2) -> Tensor:
    """All triplets that a positive and a negative pair of one anchor make."""
    return triplets(x, y, [(a, p, n) for a, p in near for b, n in far if a == b], margin)


def triplets(x: Tensor, y: Tensor, chosen: Sequence[tuple[int, int, int]], margin=0.2) -> Tensor:
    terms = [distance(x[a], y[p]) ** 2 - distance(x[a], y[n]) ** 2 + margin for a, p, n in chosen]
    return mean([t for t in terms if t > 0], x)


def lifted_structure(
    x: Tensor, y: Tensor, near: Pairs, far: Pairs, margin=1.0, within: bool = False
) -> Tensor:
    def gap(i: int, j: int) -> Tensor:
        return (x[i] - y[j]).square().sum().sqrt()

    terms = []
    for i, j in near:
        ends = [(a, n) for a, n in far if a == i] + [(a, n) for a, n in far if (a if within else n) == j]
        if ends:
            push = torch.stack([(margin - gap(a, n)).exp() for a, n in ends]).sum().log()
            terms.append(torch.relu(push + gap(i, j)) ** 2)
    return total(terms, x) / (2 * max(len(near), 1))


def multi_similarity(
    x: Tensor, y: Tensor, near: Pairs, far: Pairs, alpha=2.0, beta=50.0, base=0.5, epsilon=0.1
) -> Tensor:
    """A pair counts once, however often it is listed; nothing is mined further."""
    result = 0 * x.sum()
    for i in range(len(x)):
        for pairs, scale in ((near, -alpha), (far, beta)):
            terms = [(scale * (cosine(x[i], y[j]) - base)).exp() for a, j in sorted(set(pairs)) if a == i]
            result = result + (1 + total(terms, x)).log() / abs(scale)
    return result / len(x)


def circle(x: Tensor, y: Tensor, near: Pairs, far: Pairs, margin=0.4, gamma=80.0) -> Tensor:
    terms = []
    for i in range(len(x)):
        own = [cosine(x[i], y[j]) for a, j in sorted(set(near)) if a == i]
        other = [cosine(x[i], y[j]) for a, j in sorted(set(far)) if a == i]
        if own and other:
            pull = [(-gamma * max(1 + margin - s.item(), 0) * (s - 1 + margin)).exp() for s in own]
            push = [(gamma * max(s.item() + margin, 0) * (s - margin)).exp() for s in other]
            terms.append((1 + total(push, x) * total(pull, x)).log())
    return mean(terms, x)


def supcon(x: Tensor, y: Tensor, near: Pairs, far: Pairs, temperature=0.1) -> Tensor:
    terms = []
    for i in range(len(x)):
        own = sorted({j for a, j in near if a == i})
        columns = own + sorted({j for a, j in far if a == i} - set(own))
        logits = [cosine(x[i], y[j]) / temperature for j in columns]
        if own and len(columns) > 1:
            terms.append(mean([cross_entropy(logits, p) for p in range(len(own))], x))
    return mean(terms, x)


def unified_threshold(
    x: Tensor, y: Tensor, near: Pairs, far: Pairs, bias: Tensor, gamma=64.0, weight=1.0
) -> Tensor:
    pull = [(1 + (-gamma * cosine(x[i], y[j]) + bias).exp()).log() for i, j in near]
    push = [(1 + (gamma * cosine(x[i], y[j]) - bias).exp()).log() for i, j in far]
    return weight * (mean(pull, x) + total(push, x) / len(x))


CHOSEN: dict[str, Callable[..., Tensor]] = {
    "circle": circle,
    "contrastive": contrastive,
    "lifted_structure": lifted_structure,
    "multi_similarity": multi_similarity,
    "supcon": supcon,
    "tcm": threshold_consistent_margin,
    "triplet": triplet,
    "unified_threshold": unified_threshold,
}

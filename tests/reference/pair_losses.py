"""Naive references of the losses of pairs and ranks, and how each loss is tested."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.common import (
    Case,
    Labels,
    all_pairs,
    cosine,
    cross_entropy,
    distance,
    mean,
    negatives,
    positives,
    total,
)


def threshold_consistent_margin(
    x: Tensor,
    labels: Labels,
    positive_margin=0.9,
    negative_margin=0.5,
    positive_weight=1.0,
    negative_weight=1.0,
) -> Tensor:
    low = [cosine(x[i], x[j]) for i, j in all_pairs(labels, positives)]
    high = [cosine(x[i], x[j]) for i, j in all_pairs(labels, negatives)]
    low = [positive_margin - s for s in low if s <= positive_margin]
    high = [s - negative_margin for s in high if s >= negative_margin]
    return positive_weight * mean(low, x) + negative_weight * mean(high, x)


def contrastive(x: Tensor, labels: Labels, positive_margin=0.0, negative_margin=1.0) -> Tensor:
    far = [distance(x[i], x[j]) - positive_margin for i, j in all_pairs(labels, positives)]
    near = [negative_margin - distance(x[i], x[j]) for i, j in all_pairs(labels, negatives)]
    return mean([t for t in far if t > 0], x) + mean([t for t in near if t > 0], x)


def triplet(x: Tensor, labels: Labels, margin=0.2) -> Tensor:
    terms = []
    for a, p in all_pairs(labels, positives):
        for n in negatives(labels, a):
            near, far = distance(x[a], x[p]) ** 2, distance(x[a], x[n]) ** 2
            if near < far < near + margin:
                terms.append(torch.relu(near - far + margin))
    return mean(terms, x)


def lifted_structure(x: Tensor, labels: Labels, margin=1.0) -> Tensor:
    def euclidean(i: int, j: int) -> Tensor:
        return (x[i] - x[j]).square().sum().sqrt()

    pairs = [(i, j) for i, j in all_pairs(labels, positives) if i < j]
    terms = []
    for i, j in pairs:
        ends = [(i, k) for k in negatives(labels, i)] + [(j, k) for k in negatives(labels, j)]
        if ends:
            attraction = torch.stack([(margin - euclidean(a, b)).exp() for a, b in ends]).sum().log()
            terms.append(torch.relu(attraction + euclidean(i, j)) ** 2)
    return total(terms, x) / (2 * max(len(pairs), 1))


def multi_similarity(x: Tensor, labels: Labels, alpha=2.0, beta=50.0, base=0.5, epsilon=0.1) -> Tensor:
    result = 0 * x.sum()
    for i in range(len(x)):
        near = {j: cosine(x[i], x[j]) for j in positives(labels, i)}
        far = {j: cosine(x[i], x[j]) for j in negatives(labels, i)}
        if near and far:
            hard_positives = [s for s in near.values() if s < max(far.values()) + epsilon]
            hard_negatives = [s for s in far.values() if s > min(near.values()) - epsilon]
            result = (
                result + (1 + total([(-alpha * (s - base)).exp() for s in hard_positives], x)).log() / alpha
            )
            result = result + (1 + total([(beta * (s - base)).exp() for s in hard_negatives], x)).log() / beta
    return result / len(x)


def circle(x: Tensor, labels: Labels, margin=0.4, gamma=80.0) -> Tensor:
    terms = []
    for i in range(len(x)):
        near = [cosine(x[i], x[j]) for j in positives(labels, i)]
        far = [cosine(x[i], x[j]) for j in negatives(labels, i)]
        if near and far:
            pull = [(-gamma * max(1 + margin - s.item(), 0) * (s - 1 + margin)).exp() for s in near]
            push = [(gamma * max(s.item() + margin, 0) * (s - margin)).exp() for s in far]
            terms.append((1 + total(push, x) * total(pull, x)).log())
    return mean(terms, x)


def supcon(x: Tensor, labels: Labels, temperature=0.1) -> Tensor:
    terms = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        logits = [cosine(x[i], x[j]) / temperature for j in others]
        own = [cross_entropy(logits, others.index(p)) for p in positives(labels, i)]
        if own:
            terms.append(mean(own, x))
    return mean(terms, x)


def unified_threshold(x: Tensor, labels: Labels, bias: Tensor, gamma=64.0, weight=1.0) -> Tensor:
    pull = [(1 + (-gamma * cosine(x[i], x[j]) + bias).exp()).log() for i, j in all_pairs(labels, positives)]
    push = [(1 + (gamma * cosine(x[i], x[j]) - bias).exp()).log() for i, j in all_pairs(labels, negatives)]
    return weight * (mean(pull, x) + total(push, x) / len(x))


def before(s_j: Tensor, s_i: Tensor, temperature: float) -> Tensor:
    return 1 / (1 + (-(s_j - s_i) / temperature).exp())


def smooth_ap(x: Tensor, labels: Labels, temperature=0.01) -> Tensor:
    queries = []
    for q in range(len(x)):
        near, far = positives(labels, q), negatives(labels, q)
        s = [cosine(x[q], x[j]) for j in range(len(x))]
        terms = []
        for i in near:
            among_positives = 1 + total([before(s[j], s[i], temperature) for j in near if j != i], x)
            terms.append(
                among_positives / (among_positives + total([before(s[j], s[i], temperature) for j in far], x))
            )
        if near:
            queries.append(1 - mean(terms, x))
    return mean(queries, x)


def recall_at_k(
    x: Tensor,
    labels: Labels,
    ks=(1, 2, 4, 8, 16),
    temperature=0.01,
    recall_temperature=1.0,
    exclude_query=False,
) -> Tensor:
    terms = []
    for q in range(len(x)):
        near = positives(labels, q)
        s = [cosine(x[q], x[j]) for j in range(len(x))]
        rivals = [j for j in range(len(x)) if j != q or not exclude_query]
        ranks = [1 + total([before(s[j], s[i], temperature) for j in rivals if j != i], x) for i in near]
        for k in ks if near else ():
            hits = total([1 / (1 + (-(k - rank) / recall_temperature).exp()) for rank in ranks], x)
            terms.append(1 - torch.clamp(hits, max=k) / min(k, len(near)))
    return mean(terms, x)


CASES = {
    "circle": Case(circle, [{}, {"margin": 0.25, "gamma": 16.0}], needs_positive=True),
    "contrastive": Case(contrastive, [{}, {"positive_margin": 0.7, "negative_margin": 1.3}]),
    "lifted_structure": Case(lifted_structure, [{}, {"margin": 2.5}], length_bound=True, needs_positive=True),
    "multi_similarity": Case(
        multi_similarity, [{}, {"alpha": 3.0, "beta": 40.0, "base": 0.2, "epsilon": 0.4}], needs_positive=True
    ),
    "recall_at_k": Case(
        recall_at_k,
        [
            {},
            {"exclude_query": True},
            {"ks": [1, 3], "temperature": 0.2, "recall_temperature": 0.5},
            {"ks": [1], "temperature": 0.2, "recall_temperature": 20.0},  # flat enough to reach the cap at k
        ],
        needs_positive=True,
    ),
    "smooth_ap": Case(smooth_ap, [{}, {"temperature": 0.2}], needs_positive=True),
    "supcon": Case(supcon, [{}, {"temperature": 0.5}], needs_positive=True),
    "tcm": Case(
        threshold_consistent_margin,
        [
            {},
            {"positive_margin": 0.3, "negative_margin": -0.2, "positive_weight": 2.0, "negative_weight": 0.3},
        ],
    ),
    "triplet": Case(triplet, [{}, {"margin": 0.9}], needs_positive=True),
    "unified_threshold": Case(unified_threshold, [{}, {"gamma": 5.0, "weight": 0.3}]),
}

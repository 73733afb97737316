"""Naive twins of the losses: double loops over scalars in float64, written from the papers.

Each takes embeddings [B, D], labels (a list of ints) and the learned tensors by the names of the loss's parameters.
torch is used for its scalars' autograd alone, so that the twin gives the gradient too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["LOSS_TWINS", "REGULARIZER_TWINS"]

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


# ------------------------------------------------------------------------------------------------ pair losses


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


def language_guidance(x: Tensor, labels: Labels, text_embeddings: Tensor, gamma=1.0, omega=7.5) -> Tensor:
    def row(vectors: Tensor, i: int, like: Tensor) -> list[Tensor]:
        same = torch.tensor(1 + gamma, dtype=like.dtype)
        logits = [
            same if labels[i] == labels[j] else cosine(vectors[i], vectors[j]) for j in range(len(labels))
        ]
        return [-cross_entropy(logits, j) for j in range(len(labels))]

    texts = text_embeddings[list(labels)]
    rows = []
    for i in range(len(labels)):
        images, words = row(x, i, x), row(texts, i, x)
        rows.append(total([p.exp() * (p - q) for p, q in zip(images, words, strict=True)], x))
    return omega * mean(rows, x)


# ------------------------------------------------------------------------------------------------ rank losses


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


# ----------------------------------------------------------------------------------------------- proxy losses


def proxy_anchor(x: Tensor, labels: Labels, proxies: Tensor, alpha=32.0, margin=0.1) -> Tensor:
    pull, push = [], []
    for c, proxy in enumerate(proxies):
        near = [(-alpha * (cosine(x[i], proxy) - margin)).exp() for i in range(len(x)) if labels[i] == c]
        far = [(alpha * (cosine(x[i], proxy) + margin)).exp() for i in range(len(x)) if labels[i] != c]
        push.append((1 + total(far, x)).log())
        if near:
            pull.append((1 + total(near, x)).log())
    return mean(pull, x) + mean(push, x)


def proxy_gml(
    x: Tensor, labels: Labels, proxies: Tensor, ratio=0.05, regularization=0.3, form="softmax", **_: int
) -> Tensor:
    num_classes, per_class, _width = proxies.shape
    number = max(math.ceil(ratio * num_classes * per_class), per_class)
    terms = []
    for i in range(len(x)):
        s = {(c, n): cosine(x[i], proxies[c, n]) for c in range(num_classes) for n in range(per_class)}
        ranked = sorted(s, key=lambda place: (place[0] != labels[i], -s[place].item()))
        kept: dict[int, list[Tensor]] = {}
        for c, n in ranked[:number]:
            kept.setdefault(c, []).append(s[c, n])
        weights = {c: total(values, x).exp() for c, values in kept.items()}
        sums = total(list(weights.values()), x) + 1e-8
        own = [-(weights[c] / sums).log() for c in kept if c == labels[i]]
        others = [-(1 - weights[c] / sums).log() for c in kept if c != labels[i]]
        terms.append(total(own if form == "softmax" else own + others, x))
    among = []
    for c in range(num_classes):
        for n in range(per_class):
            rows = [[cosine(proxies[c, n], other) for other in proxies[d]] for d in range(num_classes)]
            among.append(cross_entropy([total(row, x) for row in rows], c))
    return mean(terms, x) + regularization * mean(among, x)


def proxy_nca_pp(x: Tensor, labels: Labels, proxies: Tensor, scale=9.0) -> Tensor:
    def square(a: Tensor, b: Tensor) -> Tensor:
        return (math.sqrt(scale) * (a / a.norm() - b / b.norm())).square().sum()

    return mean([cross_entropy([-square(x[i], p) for p in proxies], labels[i]) for i in range(len(x))], x)


def soft_triple(
    x: Tensor,
    labels: Labels,
    centers: Tensor,
    scale=20.0,
    gamma=0.1,
    margin=0.01,
    regularization=0.2,
    **_: int,
) -> Tensor:
    num_classes, per_class, _width = centers.shape
    terms = []
    for i in range(len(x)):
        logits = []
        for c in range(num_classes):
            s = [cosine(x[i], w) for w in centers[c]]
            weights = [(-cross_entropy([value / gamma for value in s], k)).exp() for k in range(per_class)]
            relaxed = total([w * value for w, value in zip(weights, s, strict=True)], x)
            logits.append(scale * (relaxed - margin * (c == labels[i])))
        terms.append(cross_entropy(logits, labels[i]))
    pairs = [(c, k, m) for c in range(num_classes) for k in range(per_class) for m in range(k + 1, per_class)]
    spread = total([(2 + 1e-5 - 2 * cosine(centers[c, k], centers[c, m])).sqrt() for c, k, m in pairs], x)
    return mean(terms, x) + regularization * spread / max(num_classes * per_class * (per_class - 1), 1)


def norm_softmax(x: Tensor, labels: Labels, proxies: Tensor, temperature=0.05) -> Tensor:
    return mean(
        [cross_entropy([cosine(x[i], p) / temperature for p in proxies], labels[i]) for i in range(len(x))], x
    )


def arcface(x: Tensor, labels: Labels, proxies: Tensor, scale=64.0, margin=0.5) -> Tensor:
    terms = []
    for i in range(len(x)):
        angles = [torch.acos(cosine(x[i], p)) for p in proxies]
        logits = [scale * torch.cos(angle + margin * (c == labels[i])) for c, angle in enumerate(angles)]
        if angles[labels[i]] + margin > math.pi:
            logits[labels[i]] = scale * (torch.cos(angles[labels[i]]) - margin * math.sin(margin))
        terms.append(cross_entropy(logits, labels[i]))
    return mean(terms, x)


def cosface(x: Tensor, labels: Labels, proxies: Tensor, scale=64.0, margin=0.35) -> Tensor:
    terms = []
    for i in range(len(x)):
        logits = [scale * (cosine(x[i], p) - margin * (c == labels[i])) for c, p in enumerate(proxies)]
        terms.append(cross_entropy(logits, labels[i]))
    return mean(terms, x)


LOSS_TWINS: dict[str, Callable[..., Tensor]] = {
    "arcface": arcface,
    "circle": circle,
    "contrastive": contrastive,
    "cosface": cosface,
    "lifted_structure": lifted_structure,
    "multi_similarity": multi_similarity,
    "norm_softmax": norm_softmax,
    "proxy_anchor": proxy_anchor,
    "proxy_gml": proxy_gml,
    "proxy_nca_pp": proxy_nca_pp,
    "recall_at_k": recall_at_k,
    "smooth_ap": smooth_ap,
    "soft_triple": soft_triple,
    "supcon": supcon,
    "triplet": triplet,
    "unified_threshold": unified_threshold,
}
REGULARIZER_TWINS: dict[str, Callable[..., Tensor]] = {
    "language_guidance": language_guidance,
    "tcm": threshold_consistent_margin,
    "unified_threshold": unified_threshold,
}

"""Naive references of the losses with proxies, centres or texts of classes, and how each loss is tested."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.reference.common import Case, Labels, cosine, cross_entropy, mean, total

NUM_CLASSES = 6
TEXTS = torch.randn(NUM_CLASSES, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


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


CASES = {
    "arcface": Case(arcface, [{}, {"scale": 8.0, "margin": 1.2}], label_bound=True),
    "cosface": Case(cosface, [{}, {"scale": 8.0, "margin": 0.1}], label_bound=True),
    "language_guidance": Case(
        language_guidance,
        [{"text_embeddings": TEXTS}, {"text_embeddings": TEXTS, "gamma": 0.3, "omega": 2.0}],
        label_bound=True,
    ),
    "norm_softmax": Case(norm_softmax, [{}, {"temperature": 0.3}], label_bound=True),
    "proxy_anchor": Case(proxy_anchor, [{}, {"alpha": 12.0, "margin": 0.3}], label_bound=True),
    "proxy_gml": Case(
        proxy_gml,
        [
            {"proxies_per_class": 2, "ratio": 0.4},
            {"proxies_per_class": 2, "ratio": 0.4, "form": "bce"},
            {"proxies_per_class": 3, "ratio": 0.05, "regularization": 0.0},
        ],
        label_bound=True,
    ),
    "proxy_nca_pp": Case(proxy_nca_pp, [{}, {"scale": 2.0}], label_bound=True),
    "soft_triple": Case(
        soft_triple,
        [
            {"centers_per_class": 3},
            {"centers_per_class": 1},
            {"centers_per_class": 2, "gamma": 0.5},
        ],
        label_bound=True,
    ),
}

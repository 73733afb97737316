"""Pairs that the caller chose: by a miner, or between the batch and a reference set, as pytorch-metric-learning does.

Every pair of an anchor and a reference has a number that says how often it counts, so that a list of triplets, in
which a pair is repeated, needs no list here.

Shapes: B anchors, R references (the batch itself where none are given), P pairs or triplets of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IndicesTuple = Sequence[Tensor]
"""(anchors, positives, negatives) of triplets, or (anchors, positives, anchors, negatives) of pairs, each [P]."""
NAMES = {
    3: ("anchors", "positives", "negatives"),
    4: ("anchors of positives", "positives", "anchors of negatives", "negatives"),
}


@dataclass(frozen=True)
class ChosenPairs:
    """How often each pair counts, as numbers of the dtype of the embeddings."""

    positives: Tensor
    """[B, R]."""
    negatives: Tensor
    """[B, R]."""
    triplets: tuple[Tensor, ...] | None = None
    """(anchors, positives, negatives), each [P], where the caller gave triplets."""
    mined: bool = False
    """The caller gave pairs or triplets: a loss that mines by itself leaves that."""
    within: bool = True
    """The references are the batch itself."""


def all_pairs(like: Tensor, labels: Tensor, ref_labels: Tensor) -> ChosenPairs:
    """Pair each anchor with each reference: positives have its label, an equal image among them; dtype of `like`."""
    same = labels.to(like.device).unsqueeze(1) == ref_labels.to(like.device)
    return ChosenPairs(same.to(like.dtype), (~same).to(like.dtype), within=False)


def listed_pairs(like: Tensor, indices: IndicesTuple, num_references: int, within: bool) -> ChosenPairs:
    """Count the pairs of a miner.

    Args:
        like: [B, D], the anchors: device, dtype and B.
        indices: pairs or triplets.
        num_references: R.
        within: the references are the batch itself.

    Raises:
        ValueError: not 3 or 4 index tensors of fitting lengths, or an index outside the batch or the references.
    """
    sizes = (len(like), num_references)
    parts = _checked(indices, sizes, like.device)
    positives = _count(like, sizes, parts[0], parts[1])
    negatives = _count(like, sizes, parts[-2] if len(parts) == 4 else parts[0], parts[-1])
    return ChosenPairs(positives, negatives, parts if len(parts) == 3 else None, mined=True, within=within)


def _count(like: Tensor, sizes: tuple[int, int], rows: Tensor, columns: Tensor) -> Tensor:
    count = like.new_zeros(sizes)
    return count.index_put_((rows, columns), count.new_ones(()), accumulate=True)


def _checked(indices: IndicesTuple, sizes: tuple[int, int], device: torch.device) -> tuple[Tensor, ...]:
    if len(indices) not in NAMES:
        raise ValueError(
            f"indices_tuple must have 3 tensors (triplets) or 4 (pairs), got {len(indices)}; pass a miner's result"
        )
    parts = tuple(torch.as_tensor(part, device=device) for part in indices)
    for number, (name, part) in enumerate(zip(NAMES[len(parts)], parts, strict=True)):
        limit = sizes[0] if name.startswith("anchors") else sizes[1]
        partner = parts[number - number % 2] if len(parts) == 4 else parts[0]
        if part.dim() != 1 or part.shape != partner.shape or (part.numel() and part.is_floating_point()):
            raise ValueError(
                f"indices_tuple: {name} must be an integer tensor [{len(partner)}], "
                f"got {part.dtype} {list(part.shape)}; pass a miner's result"
            )
        if part.numel() and (part.min() < 0 or part.max() >= limit):
            what = "embeddings" if name.startswith("anchors") else "references"
            raise ValueError(
                f"indices_tuple: {name} must be in 0..{limit - 1}, for {limit} {what}, "
                f"got {int(part.min())}..{int(part.max())}; mine with the same embeddings and ref_emb"
            )
    return tuple(part.long() for part in parts)


def mean_where(terms: Tensor, counts: Tensor) -> Tensor:
    """Average `terms` over what is counted, each as often as it is; 0 where nothing is."""
    return torch.where(counts > 0, terms * counts, 0).sum() / counts.sum().clamp(min=1)


def log_sum_exp(logits: Tensor, mask: Tensor, used: Tensor) -> Tensor:
    """Return the logarithm [B] of each row's sum of exponentials over `mask`; 0, without a gradient, if not `used`."""
    # The gradient of the logarithm of an empty sum is NaN.
    return torch.logsumexp(logits.masked_fill(~mask, -torch.inf).masked_fill(~used.unsqueeze(1), 0), dim=1)

"""The similarities at given rates of a model's pairs, from its stored validation embeddings."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from dmlcore.metrics.pairwise.order_statistics import bin_of_rank, share_count
from dmlcore.sweep.margin_rates import NEGATIVES, POSITIVES, Rate
from dmlcore.training.store import DamagedFileError, TrialStore

DECIMALS = 4
"""Of a resolved margin: a person can copy it, and the last bits of a product do not change a trial's key."""
STEPS = 1_000_000
"""Similarities are counted in steps of 1 / STEPS."""
ROWS = 512


@lru_cache(maxsize=4096)
def margins_from_scores(rates: tuple[Rate, ...], folder: Path, digest: str) -> dict[Rate, float]:
    """Return the margin at each rate, rounded to DECIMALS, from stored validation embeddings; cached for later plans.

    Args:
        rates: what to resolve.
        folder: of the base's files.
        digest: sha256 of its validation embeddings.

    Raises:
        DamagedFileError: the embeddings are missing, were changed, or have no pair of a kind.
    """
    stored = TrialStore(folder, {"validation": digest}).load("validation")
    found = count_pairs(stored["embeddings"], stored["labels"], stored.get("groups"))
    counts = dict(zip((POSITIVES, NEGATIVES), found, strict=True))
    return {rate: _margin(rate, counts[rate.kind], folder) for rate in rates}


def _margin(rate: Rate, counts: NDArray[np.int64], folder: Path) -> float:
    total = int(counts.sum())
    if not total:
        raise DamagedFileError(f"{folder} has no pair of validation images for {rate.kind}")
    # An order statistic: the ceil(s M)-th largest of the negatives, the ceil(s P)-th smallest of the positives.
    rank = share_count(rate.share, total)
    place, _ = bin_of_rank(counts, rank if rate.kind == NEGATIVES else total + 1 - rank)
    return min(1.0, max(-1.0, round(place / STEPS - 1.0, DECIMALS)))


def count_pairs(
    embeddings: Tensor, labels: Tensor, groups: Tensor | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the pairs of images by cosine similarity, in steps of 1 / STEPS from -1 to 1.

    Args:
        embeddings: [N, D], of any length.
        labels: [N].
        groups: [N]; two images of one class and one group are no pair.

    Returns:
        Positive pairs and negative pairs, [2 STEPS + 1] each.
    """
    # float64: sums in another order, on another processor, then differ by 1e-16 and not by a step
    vectors, bins = normalize(embeddings.double(), dim=1), 2 * STEPS + 1
    positives, negatives = (torch.zeros(bins, dtype=torch.int64) for _ in range(2))
    for start in range(0, len(vectors), ROWS):
        rows = slice(start, start + ROWS)
        steps = ((vectors[rows] @ vectors[start:].T + 1.0) * STEPS).round().long().clamp_(0, bins - 1)
        same = labels[rows, None] == labels[None, start:]
        later = torch.ones_like(same).triu(diagonal=1)
        counted = same & later
        if groups is not None:
            counted &= groups[rows, None] != groups[None, start:]
        positives += torch.bincount(steps[counted], minlength=bins)
        negatives += torch.bincount(steps[later & ~same], minlength=bins)
    return positives.numpy(), negatives.numpy()

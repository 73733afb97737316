"""What a set of embeddings looks like at a threshold, without labels: what a card keeps to compare new data with.

Shapes: N images, K blocks.

The images are divided into K blocks at random, whole classes where classes are known, and each statistic is computed
anew without each block (delete-one-block jackknife): pairs share images, so that pairs are no independent draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dmlcore.calibration.counts import COLUMNS, ROWS, Floats, Ints
from dmlcore.metrics.inputs import Array, Pairs, build_pairs
from dmlcore.metrics.pairwise.tiles import Tile, multiply_tile

BLOCKS = 20
MOST_IMAGES = 5000  # of the reference: 25 million pairs; more make no test sharper than its 20 blocks
NOTHING = -2.0  # below every cosine similarity
SUMS = ("images", "mates", "strangers", "own_accepted", "own_sum", "other_accepted", "other_sum", "nearest")
QUANTILES = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class BlockSums:
    """Per image: of accepted others in each block `count [N, K]`, `sum [N, K]` of their similarities, `best [N, K]` the
    highest similarity; of its own class the same, [N]; `block [N]` its own block, `mates [N]` the others of its class.
    """

    count: Floats
    sum: Floats
    best: Floats
    own_count: Floats
    own_sum: Floats
    own_best: Floats
    block: Ints
    mates: Ints

    def without(self, left_out: int | None) -> dict[str, float]:
        """Sum over all pairs but those with an end in one block; names are SUMS."""
        rows = self.block != (-1 if left_out is None else left_out)
        cols = np.arange(self.count.shape[1]) != (-1 if left_out is None else left_out)
        images, mates = int(rows.sum()), int(self.mates[rows].sum())
        own, own_sum = float(self.own_count[rows].sum()), float(self.own_sum[rows].sum())
        return {
            "images": images,
            "mates": mates,
            "strangers": images * (images - 1) - mates,
            "own_accepted": own,
            "own_sum": own_sum,
            "other_accepted": float(self.count[np.ix_(rows, cols)].sum()) - own,
            "other_sum": float(self.sum[np.ix_(rows, cols)].sum()) - own_sum,
            "nearest": float(self.best[np.ix_(rows, cols)].max(axis=1).mean()),
        }

    def nearest_by_size(self) -> Floats:
        """Return the mean similarity of the nearest other image among 1 to K blocks and its own class, [K]."""
        blocks = self.best.shape[1]
        found = np.zeros(blocks)
        for first in range(blocks):
            window = self.own_best
            for size in range(blocks):
                window = np.maximum(window, self.best[:, (first + size) % blocks])
                found[size] += window.mean() / blocks
        return found


def block_sums(pairs: Pairs, blocks: Ints, similarity: float) -> BlockSums:
    """Pass over all pairs of `pairs`, whose classes `blocks [C]` ascend: a block is a range of columns."""
    of = blocks[pairs.row_class]
    count, starts = len(of), np.searchsorted(of, np.arange(int(blocks[-1]) + 1))
    table = np.zeros((3, count, len(starts)))
    table[2] = NOTHING
    own = np.zeros((3, count))
    own[2] = NOTHING
    for row in range(0, count, ROWS):
        stop = min(row + ROWS, count)
        for col in range(0, count, COLUMNS):
            end = min(col + COLUMNS, count)
            block, bounds = multiply_tile(pairs, Tile(row, stop, col, end))
            top, left = row - bounds.block_row, col - bounds.block_col
            seen = block[top : top + stop - row, left : left + end - col].cpu().numpy().clip(max=1.0)
            at, rows = np.arange(col, end), np.arange(row, stop)[:, None]
            seen[at == rows] = NOTHING
            first = int(of[col])
            edges = np.maximum(starts[first : int(of[end - 1]) + 1], col) - col
            _add(table[:, row:stop, first : int(of[end - 1]) + 1], seen, edges, similarity)
            mine = (at >= pairs.own_start[row:stop, None]) & (at < pairs.own_end[row:stop, None])
            _add(own[:, row:stop, None], np.where(mine, seen, NOTHING), np.zeros(1, np.int64), similarity)
    mates = pairs.row_count[pairs.row_class] - 1
    return BlockSums(table[0], table[1], table[2], own[0], own[1], own[2], of, mates)


def _add(into: Floats, seen: np.ndarray[Any, Any], edges: Ints, similarity: float) -> None:
    """Add the accepted of each range of columns to `into [3, rows, ranges]`: count, sum, highest."""
    accepted = seen >= np.float32(similarity)
    into[0] += np.add.reduceat(accepted, edges, axis=1, dtype=np.int64)
    into[1] += np.add.reduceat(np.where(accepted, seen, 0.0), edges, axis=1, dtype=np.float64)
    into[2] = np.maximum(into[2], np.maximum.reduceat(seen, edges, axis=1))


def image_blocks(embeddings: Array, similarity: float) -> BlockSums:
    """Divide the images at random, their classes unknown: each is a class of its own."""
    labels = np.random.default_rng(0).permutation(len(embeddings))
    pairs = build_pairs(embeddings, labels, None, torch.device("cpu"), both_kinds=False)
    return block_sums(pairs, np.arange(len(labels)) * BLOCKS // len(labels), similarity)


def reference(embeddings: Array, labels: Array, similarity: float) -> dict[str, Any] | None:
    """Describe a labelled set for `monitor`, as JSON values; None for fewer than 20 classes or 40 images.

    Of more than 5,000 images, whole classes are taken at random up to so many. `full` and `without` (each block) have
    the sums of SUMS; `nearest_by_size` the mean similarity of nearest neighbours among 1/20, 2/20, ... of strangers;
    `design_effect` how much more each statistic varies with whole classes than with single images as blocks.
    """
    y = np.unique(np.asarray(labels), return_inverse=True)[1]
    sizes = np.bincount(y)
    order = np.random.default_rng(0).permutation(len(sizes))
    taken = order[: max(int(np.searchsorted(np.cumsum(sizes[order]), MOST_IMAGES)), 1)]
    place = np.full(len(sizes), -1)
    place[taken] = np.arange(len(taken))
    keep = np.flatnonzero(place[y] >= 0)
    if len(taken) < BLOCKS or len(keep) < 2 * BLOCKS:
        return None
    x = embeddings[torch.from_numpy(keep)] if isinstance(embeddings, torch.Tensor) else embeddings[keep]
    pairs = build_pairs(x, place[y[keep]], None, torch.device("cpu"))
    ends = np.cumsum(pairs.row_count) - 1
    by_class = block_sums(pairs, _spread(ends * BLOCKS // len(keep)), similarity)
    single = image_blocks(x, similarity)
    full = by_class.without(None)
    parts = [[sums.without(block) for block in range(sums.count.shape[1])] for sums in (by_class, single)]
    return {
        "full": full,
        "without": parts[0],
        "nearest_by_size": by_class.nearest_by_size().tolist(),
        "nearest_quantiles": np.quantile(by_class.best.max(axis=1), QUANTILES).tolist(),
        "design_effect": {
            name: max(float(_spread_of(parts[0], name) / max(_spread_of(parts[1], name), 1e-300)), 1.0)
            for name in ("accepted", "similarity", "nearest")
        },
    }


def _spread(blocks: Ints) -> Ints:
    """Number blocks without gaps: a class larger than a block leaves some without an image."""
    numbered: Ints = np.unique(blocks, return_inverse=True)[1]
    return numbered


def observed(sums: dict[str, float]) -> dict[str, float]:
    """Return the statistics of a set as it is: log accepted pairs an image, their mean similarity, the nearest's."""
    accepted = sums["own_accepted"] + sums["other_accepted"]
    return {
        "accepted": float(np.log((accepted + 1.0) / sums["images"])),
        "similarity": (sums["own_sum"] + sums["other_sum"]) / accepted if accepted else 1.0,
        "nearest": sums["nearest"],
    }


def _spread_of(parts: list[dict[str, float]], name: str) -> float:
    """Return the jackknife variance of a statistic, from its values without each block."""
    return jackknife_variance([observed(part)[name] for part in parts])


def jackknife_variance(values: list[float]) -> float:
    """Return (K - 1) / K sum (v - mean)^2."""
    return float(np.var(values)) * (len(values) - 1)

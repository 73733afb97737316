"""Identification (1:N): each query is searched among all gallery images, some queries are of nobody in it.

Shapes: Q queries, G gallery images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dmlcore.calibration.counts import COLUMNS, ROWS, Floats, Ints
from dmlcore.calibration.intervals import Rate, interval_of
from dmlcore.metrics.inputs import Pairs
from dmlcore.metrics.pairwise.tiles import Tile, multiply_tile

NOBODY = -2.0  # below every cosine similarity


@dataclass(frozen=True)
class Identification:
    """FPIR and FNIR at a threshold, with the gallery as it is: intervals are over the classes of the queries.

    `false_positive`: share of the searches for somebody outside the gallery that return an image all the same.
    `false_negative`: share of the others whose nearest gallery image is of another class, or beyond the threshold.
    `unknown`: whether queries of nobody in the gallery were given; otherwise each query was also searched in the
    gallery without its own class.
    """

    false_positive: Rate
    false_negative: Rate
    gallery: int
    unknown: bool


def identify(pairs: Pairs, similarity: float) -> Identification:
    """Search each query in the gallery.

    Reference: Grother, Ngan, Hanaoka, Face Recognition Vendor Test, Part 2: Identification, NIST IR 8271, 2019,
    section 3 (FNIR at rank 1 and threshold T, FPIR).
    """
    own, other = _nearest(pairs)
    mated = pairs.col_count[pairs.row_class] > 0
    unknown = bool((~mated).any())
    searched = ~mated if unknown else np.ones_like(mated)
    missed = ~((own > other) & (own >= similarity))
    return Identification(
        _ratio(other[searched] >= similarity, pairs.row_class[searched]),
        _ratio(missed[mated], pairs.row_class[mated]),
        len(pairs.col_class),
        unknown,
    )


def _nearest(pairs: Pairs) -> tuple[Floats, Floats]:
    """Return each query's highest similarity in its own class and in all others, [Q] both."""
    count = len(pairs.row_class)
    found = torch.full((2, count), NOBODY)
    starts, ends = (torch.from_numpy(part) for part in (pairs.own_start, pairs.own_end))
    for row in range(0, count, ROWS):
        stop = min(row + ROWS, count)
        for col in range(0, len(pairs.col_class), COLUMNS):
            tile = Tile(row, stop, col, min(col + COLUMNS, len(pairs.col_class)))
            block, bounds = multiply_tile(pairs, tile)
            top, left = row - bounds.block_row, col - bounds.block_col
            seen = block[top : top + stop - row, left : left + tile.end - col].cpu().clamp(max=1.0)
            at = torch.arange(col, tile.end)
            own = (at >= starts[row:stop, None]) & (at < ends[row:stop, None])
            for kind, mask in enumerate((~own, own)):
                best = seen.masked_fill(mask, NOBODY).amax(dim=1)
                found[kind, row:stop] = torch.maximum(found[kind, row:stop], best)
    both: Floats = found.numpy().astype(np.float64)
    return both[0], both[1]


def _ratio(wrong: np.ndarray[tuple[int], np.dtype[np.bool_]], classes: Ints) -> Rate:
    """Estimate a share of queries, a ratio of sums over their classes (as `intervals.reject_rate`)."""
    _, of = np.unique(classes, return_inverse=True)
    total, errors = np.bincount(of), np.bincount(of, wrong)
    residual = errors - errors.sum() / total.sum() * total
    variance = float(residual @ residual) / float(total.sum()) ** 2
    return interval_of(int(errors.sum()), int(total.sum()), variance, len(total), len(total))

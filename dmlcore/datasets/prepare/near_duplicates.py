"""Near-identical images: a 128-bit difference hash of each, and the pairs whose hashes differ in few bits.

Shapes: N images, P pairs, K kinds of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

RADIUS = 8
"""Bits of 128, for photographs. Of 600 of the Grocery Store data set, 98 % of the copies of half the size and 84 % of
the crops by 2 % are within 8 bits of their original; no two of all 5,421 that show different products are within 12."""

DRAWING_RADIUS = 0
"""Drawings on an even ground are alike in many bits: of Omniglot's pairs within 8 bits 54 % are of two classes, of
those within 1 bit 0.6 %, of those with equal hashes none."""

PARTS = 6
"""Hashes within 5 bits agree in at least one of 6 parts; of those that differ in 6, 7 and 8 bits at random, 98, 95 and
89 %. More parts would find these too, but each part would then be shared by too many of a million images."""

NEIGHBOURS = 64
"""Each image is compared with this many that share a part of its hash, the nearest in sorted order: white backgrounds
make parts that thousands share, and comparing all of those would be quadratic."""

LISTED = 100
"""Pairs that are named, and unreadable images."""

BLOCK = 1 << 16

Hashes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Kinds = Callable[[Rows, Rows], npt.NDArray[np.bool_]]


def difference_hash(image: Image.Image) -> bytes:
    """Return 16 bytes: of 8 x 8 cells, whether the cell to the right is brighter, then whether the cell below is.

    Reference: N. Krawetz, "Kind of like that", hackerfactor.com, 2013 (dHash), here in both directions.
    """
    cells = image.convert("L").resize((9, 9), Image.Resampling.BOX)
    grey = np.frombuffer(cells.tobytes(), np.uint8).reshape(9, 9)
    corner = grey[:8, :8]
    return np.packbits(np.concatenate([grey[:8, 1:] > corner, grey[1:, :8] > corner])).tobytes()


def near_identical(hashes: Hashes, manifest: pl.DataFrame, *, drawings: bool) -> dict[str, Any]:
    """Summarise the pairs of near-identical images in two splits, and of photographs also those in two classes.

    Args:
        hashes: [N, 16], uint8, of the manifest's rows.
        manifest: N rows.
        drawings: they are grey drawings, not photographs.
    """
    # Drawings of different classes look alike as a rule: only one drawing in two splits is a leak.
    kinds = {"across_splits": "split"} | ({} if drawings else {"across_classes": "label"})
    radius = DRAWING_RADIUS if drawings else RADIUS
    codes = np.stack([manifest[column].rank("dense").to_numpy() for column in kinds.values()], axis=1)
    pairs = near_pairs(hashes, lambda one, other: codes[one] != codes[other], radius=radius, limit=LISTED)

    def named(row: int) -> str:
        return f"{manifest['split'][row]} {manifest['source'][row]!r}"

    return {
        "rule": f"128-bit difference hashes that differ in at most {radius} bits; pairs of images",
        **dict(zip(kinds, pairs.counts.tolist(), strict=True)),
        "images_not_compared_with_all_alike": pairs.skipped,
        "first": [f"{named(one)}, {named(other)}: {bits} bits" for one, other, bits in pairs.first.tolist()],
    }


@dataclass(frozen=True)
class NearPairs:
    """What `near_pairs` found."""

    counts: npt.NDArray[np.int64]
    """[K], pairs of each kind; lower bounds where `skipped` is not 0."""
    first: npt.NDArray[np.int64]
    """[P, 3]: the two rows and the differing bits of the first pairs in order of the rows."""
    skipped: int
    """Images with more than NEIGHBOURS others in one part of the hash, so not compared with all of them."""


def near_pairs(hashes: Hashes, kinds: Kinds, *, radius: int = RADIUS, limit: int = 100) -> NearPairs:
    """Find pairs of rows whose hashes differ in at most `radius` bits.

    Multi-index hashing (Norouzi et al., CVPR 2012): sort by each part of the hash, compare neighbours that share it.
    Memory is linear in N; time is N x NEIGHBOURS at most.

    Args:
        hashes: [N, 16], uint8.
        kinds: maps rows [P] and rows [P] to the kinds of each pair, [P, K] bool. A pair of no kind is left out.
        radius: bits.
        limit: pairs listed.
    """
    parts = _parts(hashes) if radius else _numbered(hashes)
    found, nothing = np.empty((0, 3), np.int64), np.empty(0, np.int64)
    counts = kinds(nothing, nothing).sum(axis=0)  # K zeros: only `kinds` knows K.
    crowded = np.zeros(len(hashes), np.bool_)
    for place in range(parts.shape[1]):
        for one, other in _neighbours(parts[:, place], hashes, crowded):
            pairs, of_kinds = _close(one, other, hashes, parts[:, :place], kinds, radius)
            counts = counts + of_kinds.sum(axis=0)
            found = np.concatenate([found, pairs])
            found = found[np.lexsort((found[:, 1], found[:, 0]))][:limit]
    return NearPairs(counts, found, int(crowded.sum()))


def _parts(hashes: Hashes) -> npt.NDArray[np.int32]:
    """Split the 128 bits into PARTS runs of bits, each as a number: [N, PARTS]."""
    parts = np.empty((len(hashes), PARTS), np.int32)
    bounds = np.linspace(0, 128, PARTS + 1).astype(int)
    for block in range(0, len(hashes), BLOCK):  # Unpacked, a million hashes would take 128 MB.
        bits = np.unpackbits(hashes[block : block + BLOCK], axis=1)
        for place, (start, end) in enumerate(pairwise(bounds)):
            parts[block : block + BLOCK, place] = bits[:, start:end] @ (
                1 << np.arange(end - start, dtype=np.int32)
            )
    return parts


def _numbered(hashes: Hashes) -> npt.NDArray[np.int32]:
    """Number the distinct hashes: [N, 1]."""
    _, numbers = np.unique(hashes.view(np.uint64), axis=0, return_inverse=True)
    return numbers.reshape(-1, 1).astype(np.int32)


def _neighbours(
    part: npt.NDArray[np.int32], hashes: Hashes, crowded: npt.NDArray[np.bool_]
) -> Iterator[tuple[Rows, Rows]]:
    """Yield pairs that share `part`, nearest in hash order first; mark in `crowded` the rows with too many."""
    halves = hashes.view(np.uint64)  # Two numbers a hash, so that lexsort compares 2 keys in place of 16.
    order = np.lexsort((halves[:, 1], halves[:, 0], part))
    ordered = part[order]
    start = np.arange(len(order))
    for step in range(1, NEIGHBOURS + 1):
        # Sorted by part: once a row and the row `step` behind it differ, no row further behind shares its part.
        start = start[: np.searchsorted(start, len(order) - step)]
        start = start[ordered[start] == ordered[start + step]]
        if not len(start):
            return
        yield order[start], order[start + step]
    crowded[order[start]] = True


def _close(
    one: Rows, other: Rows, hashes: Hashes, earlier: npt.NDArray[np.int32], kinds: Kinds, radius: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the near pairs, [P, 3], and their kinds, without pairs that share an `earlier` part: those are counted."""
    of_kinds = kinds(one, other)
    kept = of_kinds.any(axis=1)
    one, other, of_kinds = one[kept], other[kept], of_kinds[kept]
    # Kinds first: pairs of one class and split are of no kind, and drop out before the bits are counted.
    bits = np.bitwise_count(hashes[one] ^ hashes[other]).sum(axis=1, dtype=np.int64)
    near = (bits <= radius) & ~(earlier[one] == earlier[other]).any(axis=1)
    pairs = np.stack([np.minimum(one, other), np.maximum(one, other), bits], axis=1)
    return pairs[near], of_kinds[near]

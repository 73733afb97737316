"""What passes over all pairs must count; `torch_sweep` and `numba_sweep` must agree bit for bit."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.inputs import Ints, Split
from dmlcore.metrics.pairwise.ranks import Ranks


class Sweep(Protocol):
    """Counts over all pairs of one similarity matrix, each in one pass or in few."""

    @property
    def lowest_bin(self) -> int:
        """Return the lowest upper key whose pairs it can still tell apart."""
        ...

    def new_ranks(self, first: int, last: int, largest_k: int) -> Ranks:
        """Sort the positives of queries first..last-1, before any negative was seen."""
        ...

    def count_keys(self, ranks: Ranks | None, positives: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count negative pairs by the upper bits of their key, [HIGH_BINS]; fill `ranks` in the same pass.

        `positives`: the same of the positive pairs; keys under `lowest_bin` and under the crossing of FAR and FRR
        may be left uncounted.
        """
        ...

    def count_ranks(self, ranks: Ranks) -> None:
        """Fill `ranks` of a slice of the queries alone, against every column."""
        ...

    def query_scores(self, ranks: Ranks, ks: tuple[int, ...]) -> NDArray[np.float64]:
        """Return recall at each k, average precision at R, R-precision of each query, [Q, ks + 2]."""
        ...

    def positive_keys(self, shift: int, base: int, bins: int) -> NDArray[np.int64]:
        """Count positive pairs by `(key >> shift) - base`, [bins]."""
        ...

    def positives_at(
        self, cuts: NDArray[np.float32], splits: list[Split]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Count positive pairs accepted at each cut: of whole classes [C, K], within halves [S, 2, C, K]."""
        ...

    def count_low_keys(self, bases: list[int]) -> NDArray[np.int64]:
        """Count negative pairs by the lower bits of their key, for each upper key in `bases`: [bases, LOW_BINS]."""
        ...

    def count_at(self, cuts: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Count negatives of each row and column image by the highest cut that they reach: [Q, K] and [G, K]."""
        ...

    def sum_by_class(
        self, table: NDArray[np.int32], classes: Ints, taken: NDArray[np.bool_], total: Ints
    ) -> None:
        """Add rows `taken [N]` of `table [N, K]` to their class, `classes [N]` ascending, of `total [C, K]`."""
        rows = np.flatnonzero(taken)
        first = np.flatnonzero(np.diff(classes[rows], prepend=-1))
        if len(first):
            sums = np.add.reduceat(table[rows], first, axis=0, dtype=np.int64)
            total[classes[rows[first]]] += sums

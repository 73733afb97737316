"""What a walk over all pairs must offer; `torch_sweep` and `numba_sweep` must agree bit for bit in their counts."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.counts import Split
from dmlcore.metrics.pairwise.ranks import Ranks


class Sweep(Protocol):
    """Counts over all negative pairs; `lowest_bin` is the lowest upper key whose pairs it can still tell apart."""

    @property
    def lowest_bin(self) -> int: ...

    def new_ranks(self, first: int, last: int, largest_k: int) -> Ranks:
        """The positives of queries first..last-1, sorted, no negative seen yet."""
        ...

    def count_keys(self, ranks: Ranks | None, positives: NDArray[np.int64]) -> NDArray[np.int64]:
        """Negative pairs by the upper bits of their key, [HIGH_BINS]; fills `ranks` on the way.

        `positives`: the same of the positive pairs; keys under `lowest_bin` and under the crossing of FAR and FRR
        may be left uncounted.
        """
        ...

    def count_ranks(self, ranks: Ranks) -> None:
        """Fill `ranks` of a slice of the queries alone, against every column."""
        ...

    def query_scores(self, ranks: Ranks, ks: tuple[int, ...]) -> NDArray[np.float64]:
        """Recall at each k, average precision at R, R-precision of each query, [Q, ks + 2]."""
        ...

    def positive_keys(self, shift: int, base: int, bins: int) -> NDArray[np.int64]:
        """Positive pairs by `(key >> shift) - base`, [bins]."""
        ...

    def positives_at(
        self, cuts: NDArray[np.float32], splits: list[Split]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Positive pairs accepted at each cut: of whole classes [C, K], and within halves [S, 2, C, K]."""
        ...

    def count_low_keys(self, bases: list[int]) -> NDArray[np.int64]:
        """Negative pairs by the lower bits of their key, for each upper key in `bases`: [bases, LOW_BINS]."""
        ...

    def count_at(self, cuts: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Negatives of each row and column image whose highest cut they reach is the k-th: [Q, K] and [G, K]."""
        ...

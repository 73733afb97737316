"""What a walk over all pairs must offer; `torch_sweep` and `numba_sweep` must agree bit for bit in their counts."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.ranks import Ranks


class Sweep(Protocol):
    """Counts over all negative pairs; `lowest_bin` is the lowest upper key whose pairs it can still tell apart."""

    lowest_bin: int

    def count_keys(self, ranks: Ranks | None) -> NDArray[np.int64]:
        """Negative pairs by the upper bits of their key, [HIGH_BINS]; fills `ranks` on the way."""
        ...

    def count_ranks(self, ranks: Ranks) -> None:
        """Fill `ranks` of a slice of the queries alone, against every column."""
        ...

    def count_low_keys(self, bases: list[int]) -> NDArray[np.int64]:
        """Negative pairs by the lower bits of their key, for each upper key in `bases`: [bases, LOW_BINS]."""
        ...

    def count_at(self, cuts: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Negatives of each row and column image whose highest cut they reach is the k-th: [Q, K] and [G, K]."""
        ...

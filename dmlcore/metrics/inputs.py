"""The arguments of evaluate(), checked, and its embeddings as sorted, L2-normalised rows and columns of one matrix.

Shapes: N images, D width, C classes, Q rows (queries), G columns (gallery). Without `is_query` every image is
both, Q = G = N, and each unordered pair counts once; with it the pairs are (query, gallery) only.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.arrays import check_embeddings, check_is_query, check_labels

Array = NDArray[np.generic] | torch.Tensor
Ints = NDArray[np.int64]
Split = tuple[Ints, Ints]  # half of each row and of each column image
REPORTED_FARS = (0.1, 0.01, 0.001, 0.0001)
SMALLEST_MEMORY = 1 << 24
ROW_MULTIPLE = 256  # MKL uses other kernels, other rounding, for slim blocks: equal pairs must get equal bits
SAME_DIRECTION = 1e-4  # embeddings that differ by less are taken as one point


@dataclass(frozen=True)
class Settings:
    """The arguments of evaluate(); see there for each field."""

    ks: tuple[int, ...] = (1, 2, 4, 8)
    far_range: tuple[float, float] = (0.01, 0.1)
    num_thresholds: int = 101
    epsilon: float = 0.1
    distance_range: tuple[float, float] | None = None
    bootstrap: int = 0
    memory_bytes: int = 2**30
    seed: int = 0

    @property
    def rates(self) -> set[float]:
        """The false-accept rates whose distances are asked for."""
        return {*REPORTED_FARS, *(() if self.distance_range else self.far_range)}

    def __post_init__(self) -> None:
        if not self.ks or any(k < 1 for k in self.ks):
            raise ValueError(f"ks must be integers of at least 1, got {self.ks}")
        _check_range("far_range", self.far_range, 1.0, "two rates in (0, 1], the smaller one first")
        if self.far_range[0] <= 0.0:
            raise ValueError(
                f"far_range must be above 0, got {self.far_range}; the smallest rate is one pair"
            )
        if self.distance_range is not None:
            _check_range(
                "distance_range", self.distance_range, 2.0, "two L2 distances, the smaller one first"
            )
        if self.num_thresholds < 2:
            raise ValueError(f"num_thresholds must be at least 2 (both ends), got {self.num_thresholds}")
        if not 0.0 < self.epsilon <= 1.0:
            raise ValueError(f"epsilon must be a share of the classes in (0, 1], got {self.epsilon}")
        if self.bootstrap < 0:
            raise ValueError(f"bootstrap must be a number of resamples, 0 for none, got {self.bootstrap}")
        if self.memory_bytes < SMALLEST_MEMORY:
            raise ValueError(
                f"memory_bytes must be at least {SMALLEST_MEMORY} (16 MiB), got {self.memory_bytes}"
            )


def _check_range(name: str, value: tuple[float, float], highest: float, fix: str) -> None:
    if not (len(value) == 2 and all(map(math.isfinite, value)) and 0.0 <= value[0] <= value[1] <= highest):
        raise ValueError(f"{name} must satisfy 0 <= first <= second <= {highest:g}, got {value}; pass {fix}")


@dataclass(frozen=True)
class Pairs:
    """The similarity matrix, never held: rows and columns sorted by class, zero-padded to a multiple of 256.

    Sorted, the positives are a band along the diagonal, and the negatives of a row all other columns.

    `rows [Q', D]`, `cols [G', D]` float32; `row_class [Q]`, `col_class [G]` in 0..C-1, ascending;
    `row_count [C]`, `col_count [C]` images a class; `own_start [Q]`, `own_end [Q]` the columns of the row's own class.
    """

    rows: torch.Tensor
    cols: torch.Tensor
    row_class: Ints
    col_class: Ints
    row_count: Ints
    col_count: Ints
    class_ids: NDArray[np.generic]
    symmetric: bool

    @property
    def own_start(self) -> Ints:
        return (np.cumsum(self.col_count) - self.col_count)[self.row_class]

    @property
    def own_end(self) -> Ints:
        return np.cumsum(self.col_count)[self.row_class]

    @property
    def positives_of_row(self) -> Ints:
        """R of each query: images of its class in the gallery, itself excluded. Shape [Q]."""
        return self.col_count[self.row_class] - int(self.symmetric)

    @property
    def positive_pairs(self) -> Ints:
        """Positive pairs of each class, shape [C]: n (n - 1) / 2, or queries times gallery."""
        return pair_count(self.row_count, self.col_count, self.symmetric)

    @property
    def negative_pairs(self) -> Ints:
        """Pairs with exactly one end in the class, shape [C]."""
        across = self.row_count * (len(self.col_class) - self.col_count)
        other = self.col_count * (len(self.row_class) - self.row_count)
        return across if self.symmetric else across + other

    @property
    def total_negatives(self) -> int:
        """Each negative pair has ends in two classes, so the class counts hold it twice."""
        return int(self.negative_pairs.sum()) // 2


def pair_count(rows: Ints, cols: Ints, symmetric: bool) -> Ints:
    """Count the pairs of `rows` with `cols` images of a class, unordered ones where they are the same images."""
    return rows * (rows - 1) // 2 if symmetric else rows * cols


def build_pairs(embeddings: Array, labels: Array, is_query: Array | None, device: torch.device) -> Pairs:
    """Check, normalise and sort by class.

    Raises:
        ValueError: see evaluate().
    """
    x, y = check_embeddings(embeddings), check_labels(labels)
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or x.shape[1] == 0:
        raise ValueError(
            f"embeddings must be [N, D] with one label each [N], got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    class_ids, classes = np.unique(y, return_inverse=True)
    if len(class_ids) < 2:
        raise ValueError(
            f"labels must have at least 2 classes, got {len(class_ids)}: there is no negative pair"
        )
    query, unit = check_is_query(is_query, len(y)), _normalise(x.to(device))
    everything = np.arange(len(y))
    rows, row_class = _sort_by_class(unit, classes, everything if query is None else np.flatnonzero(query))
    cols, col_class = (
        (rows, row_class) if query is None else _sort_by_class(unit, classes, np.flatnonzero(~query))
    )
    row_count, col_count = (np.bincount(part, minlength=len(class_ids)) for part in (row_class, col_class))
    pairs = Pairs(rows, cols, row_class, col_class, row_count, col_count, class_ids, query is None)
    if pairs.positive_pairs.sum() == 0 or pairs.total_negatives == 0:
        raise ValueError(
            f"there must be at least one positive and one negative pair, got {pairs.positive_pairs.sum()} and "
            f"{pairs.total_negatives}; give some class two images (or a query and a gallery image)"
        )
    return pairs


def _sort_by_class(unit: torch.Tensor, classes: Ints, index: Ints) -> tuple[torch.Tensor, Ints]:
    order = index[np.argsort(classes[index], kind="stable")]
    padded = -(-len(order) // ROW_MULTIPLE) * ROW_MULTIPLE
    x = unit.new_zeros(padded, unit.shape[1])
    torch.index_select(unit, 0, torch.from_numpy(order).to(unit.device), out=x[: len(order)])
    return x, classes[order]


def _normalise(x: torch.Tensor) -> torch.Tensor:
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    if not bool((norms > 0).all()):
        row = int((norms[:, 0] <= 0).nonzero()[0, 0])
        raise ValueError(
            f"embeddings: row {row} is all zeros and cannot be normalised; a model with zero outputs has collapsed"
        )
    unit: torch.Tensor = (x / norms).float()
    if bool(((unit - unit[0]).abs().amax() < SAME_DIRECTION).item()):
        raise ValueError(
            f"embeddings have collapsed: all {len(x)} rows point the same way within {SAME_DIRECTION:g}, so no "
            "metric has a meaning; lower the learning rate or check the loss"
        )
    return unit

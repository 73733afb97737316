"""The arguments of evaluate(), checked, and its embeddings as sorted, L2-normalised rows and columns of one matrix.

Shapes: N images, D width, C classes, Q rows (queries), G columns (gallery). Without `is_query` every image is
both, Q = G = N, and each unordered pair counts once; with it the pairs are (query, gallery) only.
"""

import math
from dataclasses import dataclass
from functools import cached_property

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
SMALLEST_SQUARED = 1e-12  # elements below this, or above its inverse, are scaled before they are squared
HASHED_ELEMENTS = 1 << 20  # 8 MiB at a time


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
    `row_key [Q]`, `col_key [G]` the content of each image as a number, equal for identical rows, ascending in a class;
    `row_count [C]`, `col_count [C]` images a class; `own_start [Q]`, `own_end [Q]` the columns of the row's own class.
    """

    rows: torch.Tensor
    cols: torch.Tensor
    row_class: Ints
    col_class: Ints
    row_key: Ints
    col_key: Ints
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

    @cached_property
    def repeated(self) -> tuple[Ints, Ints]:
        """Which rows and which columns have an identical one on the other side, themselves left out: ascending."""
        if self.symmetric:
            _, index, count = np.unique(self.row_key, return_inverse=True, return_counts=True)
            found = np.flatnonzero(count[index] > 1)
            return found, found
        row, col = np.isin(self.row_key, self.col_key), np.isin(self.col_key, self.row_key)
        return np.flatnonzero(row), np.flatnonzero(col)

    @property
    def image_keys(self) -> Ints:
        """The content of every image of the set, queries and gallery."""
        return self.row_key if self.symmetric else np.concatenate([self.row_key, self.col_key])

    @property
    def under_two_labels(self) -> int:
        """How many images are identical to one of another class."""
        classes = self.row_class if self.symmetric else np.concatenate([self.row_class, self.col_class])
        _, content = np.unique(self.image_keys, return_inverse=True)
        lowest, highest = np.full(len(classes), len(classes)), np.zeros(len(classes), dtype=np.int64)
        np.minimum.at(lowest, content, classes)
        np.maximum.at(highest, content, classes)
        return int((lowest < highest)[content].sum())

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


def build_pairs(
    embeddings: Array,
    labels: Array,
    is_query: Array | None,
    device: torch.device,
    *,
    both_kinds: bool = True,
) -> Pairs:
    """Check, normalise and sort by class; `both_kinds`: there must be positive and negative pairs.

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
    query, unit = check_is_query(is_query, len(y)), normalise(x.to(device))
    keys = content_keys(unit)
    order = np.lexsort(
        (keys, classes)
    )  # by content within a class: no number depends on the order of the input
    taken = [order, order] if query is None else [order[query[order]], order[~query[order]]]
    row_class, col_class = (classes[index] for index in taken)
    row_key, col_key = (keys[index] for index in taken)
    rows = _take_padded(unit, taken[0])
    cols = rows if query is None else _take_padded(unit, taken[1])
    row_count, col_count = (np.bincount(part, minlength=len(class_ids)) for part in (row_class, col_class))
    pairs = Pairs(
        rows, cols, row_class, col_class, row_key, col_key, row_count, col_count, class_ids, query is None
    )
    if both_kinds and (pairs.positive_pairs.sum() == 0 or pairs.total_negatives == 0):
        raise ValueError(
            f"there must be at least one positive and one negative pair, got {pairs.positive_pairs.sum()} and "
            f"{pairs.total_negatives}; give some class two images (or a query and a gallery image)"
        )
    return pairs


def _take_padded(unit: torch.Tensor, index: Ints) -> torch.Tensor:
    padded = -(-len(index) // ROW_MULTIPLE) * ROW_MULTIPLE
    x = unit.new_zeros(padded, unit.shape[1])
    torch.index_select(unit, 0, torch.from_numpy(index).to(unit.device), out=x[: len(index)])
    return x


def content_keys(unit: torch.Tensor) -> Ints:
    """Compute a 64-bit hash of each row's float32 bits, [N]; for N rows, two that differ share one at N^2 / 2^65."""
    generator = torch.Generator().manual_seed(0)
    odd = torch.randint(-(2**62), 2**62, (unit.shape[1],), generator=generator).to(unit.device) * 2 + 1
    keys = torch.empty(len(unit), dtype=torch.int64, device=unit.device)
    step = max(1, HASHED_ELEMENTS // unit.shape[1])
    for first in range(0, len(unit), step):
        bits = unit[first : first + step].view(torch.int32).long()
        bits ^= bits << 29  # an odd factor alone keeps trailing zeros, of which short numbers have many
        keys[first : first + step] = (bits * odd).sum(dim=1)
    found: Ints = keys.cpu().numpy()
    return found


def normalise(x: torch.Tensor) -> torch.Tensor:
    """Scale each finite row of `x [N, D]` to length 1, in its own precision, then round to float32.

    Raises:
        ValueError: a row is all zeros, or all rows are one point.
    """
    largest = torch.linalg.vector_norm(x, ord=torch.inf, dim=1, keepdim=True)
    if not bool((largest > 0).all()):
        row = int((largest[:, 0] <= 0).nonzero()[0, 0])
        raise ValueError(
            f"embeddings: row {row} is all zeros and cannot be normalised; a model with zero outputs has collapsed"
        )
    unit: torch.Tensor = (x / torch.linalg.vector_norm(x, dim=1, keepdim=True)).float()
    # Squares of these overflow or underflow: their largest element becomes 1 first.
    extreme = ((largest < SMALLEST_SQUARED) | (largest > 1 / SMALLEST_SQUARED))[:, 0]
    if bool(extreme.any()):
        scaled = x[extreme].double() / largest[extreme].double()
        unit[extreme] = (scaled / torch.linalg.vector_norm(scaled, dim=1, keepdim=True)).float()
    unit += 0.0  # -0.0 becomes 0.0: equal rows get equal bits
    if bool(((unit - unit[0]).abs().amax() < SAME_DIRECTION).item()):
        raise ValueError(
            f"embeddings have collapsed: all {len(x)} rows point the same way within {SAME_DIRECTION:g}, so no "
            "metric has a meaning; lower the learning rate or check the loss"
        )
    return unit

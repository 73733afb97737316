"""The arguments of evaluate(), checked, and its embeddings as sorted, L2-normalised rows and columns of one matrix.

Shapes: N images, D width, C classes, Q rows (queries), G columns (gallery). Without `is_query` every image is
both, Q = G = N, and each unordered pair counts once; with it the pairs are (query, gallery) only. Two images of one
class and one group (camera, sequence, encounter) are no pair; without groups, each image is a group of its own.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.arrays import (
    as_embeddings,
    check_finite,
    check_groups,
    check_is_query,
    check_labels,
    content_keys,
    kept_images,
    normalise,
    take_padded,
)

Array = NDArray[np.generic] | torch.Tensor
Ints = NDArray[np.int64]
Split = tuple[Ints, Ints]  # half of each row and of each column image
REPORTED_FARS = (0.1, 0.01, 0.001, 0.0001)
SMALLEST_MEMORY = 1 << 24
ROW_MULTIPLE = 256  # MKL uses other kernels, other rounding, for slim blocks: equal pairs must get equal bits


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
    """The similarity matrix, never held: rows and columns sorted by class and group, zero-padded to a multiple of 256.

    Sorted, the positives are a band along the diagonal with a gap where row and column are of one group (the row's own
    image, if no more), and the negatives of a row all other columns.

    `rows [Q', D]`, `cols [G', D]` float32; `row_class [Q]`, `col_class [G]` in 0..C-1, ascending;
    `row_group [Q]`, `col_group [G]` a number for each group of each class, ascending, the same in rows and columns;
    `row_key [Q]`, `col_key [G]` the content of each image as a number, equal for identical rows, ascending in a group;
    `row_count [C]`, `col_count [C]` images a class; `own_start [Q]`, `own_end [Q]` the columns of the row's own class;
    `same_start [Q]`, `same_end [Q]` those of its own group; `group_count`, `ignored_count` None where not asked for.
    """

    rows: torch.Tensor
    cols: torch.Tensor
    row_class: Ints
    col_class: Ints
    row_group: Ints
    col_group: Ints
    row_key: Ints
    col_key: Ints
    row_count: Ints
    col_count: Ints
    class_ids: NDArray[np.generic]
    symmetric: bool
    group_count: int | None
    ignored_count: int | None

    @property
    def own_start(self) -> Ints:
        return (np.cumsum(self.col_count) - self.col_count)[self.row_class]

    @property
    def own_end(self) -> Ints:
        return np.cumsum(self.col_count)[self.row_class]

    @cached_property
    def same_start(self) -> Ints:
        return np.searchsorted(self.col_group, self.row_group, side="left")

    @cached_property
    def same_end(self) -> Ints:
        return np.searchsorted(self.col_group, self.row_group, side="right")

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
        """R of each query: images of its class in the gallery, those of its own group excluded. Shape [Q]."""
        return self.col_count[self.row_class] - (self.same_end - self.same_start)

    @property
    def positive_pairs(self) -> Ints:
        """Positive pairs of each class, shape [C]: n (n - 1) / 2, or queries times gallery, less those of one group."""
        every = np.ones(len(self.row_class), dtype=np.bool_)
        return self.positives_among(every, self.col_count)

    def positives_among(self, taken: NDArray[np.bool_], cols: Ints) -> Ints:
        """Count the positive pairs of rows `taken [Q]` and of columns, `cols [C]` of a class: [C].

        Columns of a taken row's group must be among them.
        """
        classes, same = self.row_class[taken], (self.same_end - self.same_start)[taken]
        rows, none = (np.bincount(classes, weights, len(cols)).astype(np.int64) for weights in (None, same))
        return (rows * cols - none) // (2 if self.symmetric else 1)

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


def build_pairs(
    embeddings: Array,
    labels: Array,
    is_query: Array | None,
    device: torch.device,
    *,
    groups: Array | None = None,
    ignore_label: int | str | None = None,
    both_kinds: bool = True,
) -> Pairs:
    """Check, leave out what has the ignored label, normalise, sort by class and group.

    Raises:
        ValueError: see evaluate(); without a positive or a negative pair only where `both_kinds`.
    """
    x, y = as_embeddings(embeddings), check_labels(labels)
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or x.shape[1] == 0:
        raise ValueError(
            f"embeddings must be [N, D] with one label each [N], got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    query, g = check_is_query(is_query, len(y)), check_groups(groups, len(y))
    if ignore_label is not None:
        keep = kept_images(y, ignore_label)
        x, y, g = x[torch.from_numpy(keep).to(x.device)], y[keep], None if g is None else g[keep]
        query = None if query is None else check_is_query(query[keep], len(y))
    check_finite(x)
    class_ids, classes = np.unique(y, return_inverse=True)
    if len(class_ids) < 2:
        raise ValueError(
            f"labels must have at least 2 classes, got {len(class_ids)}: there is no negative pair"
        )
    unit = normalise(x.to(device))
    keys = content_keys(unit)
    group_ids, group = (None, 0) if g is None else np.unique(g, return_inverse=True)
    # By content at last: no number depends on the order of the input.
    order = np.lexsort((keys, np.broadcast_to(group, len(y)), classes))
    # Without groups each image is one of its own, by its place: an image is no pair with itself.
    within = np.arange(len(y)) if group_ids is None else (classes * len(group_ids) + group)[order]
    parts = [slice(None)] * 2 if query is None else [query[order], ~query[order]]
    taken = [order[part] for part in parts]
    rows = take_padded(unit, taken[0], ROW_MULTIPLE)
    cols = rows if query is None else take_padded(unit, taken[1], ROW_MULTIPLE)
    row_count, col_count = (np.bincount(classes[index], minlength=len(class_ids)) for index in taken)
    pairs = Pairs(
        *(rows, cols, classes[taken[0]], classes[taken[1]], within[parts[0]], within[parts[1]]),
        *(keys[taken[0]], keys[taken[1]], row_count, col_count, class_ids, query is None),
        group_count=None if group_ids is None else len(group_ids),
        ignored_count=None if ignore_label is None else int((~keep).sum()),
    )
    if both_kinds:
        _check_both_kinds(pairs)
    return pairs


def _check_both_kinds(pairs: Pairs) -> None:
    positives, negatives = int(pairs.positive_pairs.sum()), pairs.total_negatives
    if positives and negatives:
        return
    same = "two images (or a query and a gallery image)"
    fix = "two images of different groups" if pairs.group_count else same
    raise ValueError(
        f"there must be at least one positive and one negative pair, got {positives} and {negatives}; give some class "
        + fix
    )

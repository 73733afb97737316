"""From what the caller hands in to sorted, L2-normalised rows and columns of one similarity matrix.

Shapes: N images, D width, C classes, Q rows (queries), G columns (gallery). Without `is_query` every image is
both, Q = G = N, and each unordered pair counts once; with it the pairs are (query, gallery) only.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.generic] | torch.Tensor
ROW_MULTIPLE = 256  # MKL uses other kernels, other rounding, for slim blocks: equal pairs must get equal bits


@dataclass(frozen=True)
class Pairs:
    """The similarity matrix to walk: rows and columns sorted by class, zero-padded to a multiple of 256.

    `rows [Q', D]`, `cols [G', D]` float32; `row_class [Q]`, `col_class [G]` in 0..C-1, ascending;
    `row_count [C]`, `col_count [C]` images a class; `own_start [Q]`, `own_end [Q]` the columns of the row's own class.
    """

    rows: torch.Tensor
    cols: torch.Tensor
    row_class: NDArray[np.int64]
    col_class: NDArray[np.int64]
    row_count: NDArray[np.int64]
    col_count: NDArray[np.int64]
    class_ids: NDArray[np.generic]
    symmetric: bool

    @property
    def own_start(self) -> NDArray[np.int64]:
        return (np.cumsum(self.col_count) - self.col_count)[self.row_class]

    @property
    def own_end(self) -> NDArray[np.int64]:
        return np.cumsum(self.col_count)[self.row_class]

    @property
    def positives_of_row(self) -> NDArray[np.int64]:
        """R of each query: images of its class in the gallery, itself excluded. Shape [Q]."""
        return self.col_count[self.row_class] - int(self.symmetric)

    @property
    def positive_pairs(self) -> NDArray[np.int64]:
        """Positive pairs of each class, shape [C]: n (n - 1) / 2, or queries times gallery."""
        return pair_count(self.row_count, self.col_count, self.symmetric)

    @property
    def negative_pairs(self) -> NDArray[np.int64]:
        """Pairs with exactly one end in the class, shape [C]."""
        across = self.row_count * (len(self.col_class) - self.col_count)
        other = self.col_count * (len(self.row_class) - self.row_count)
        return across if self.symmetric else across + other

    @property
    def total_negatives(self) -> int:
        """Each negative pair has ends in two classes, so the class counts hold it twice."""
        return int(self.negative_pairs.sum()) // 2


def pair_count(rows: NDArray[np.int64], cols: NDArray[np.int64], symmetric: bool) -> NDArray[np.int64]:
    """Pairs of `rows` with `cols` images of a class; each unordered pair once where they are the same images."""
    return rows * (rows - 1) // 2 if symmetric else rows * cols


def build_pairs(embeddings: Array, labels: Array, is_query: Array | None, device: torch.device) -> Pairs:
    """Check, normalise and sort by class. Raises ValueError with what, rule, value and fix."""
    x, y = _check_embeddings(embeddings), _check_labels(labels)
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or x.shape[1] == 0:
        raise ValueError(
            f"embeddings must be [N, D] with one label each [N], got {tuple(x.shape)} and {tuple(y.shape)}; "
            "pass one embedding row and one label an image"
        )
    class_ids, classes = np.unique(y, return_inverse=True)
    if len(class_ids) < 2:
        raise ValueError(
            f"labels must hold at least 2 classes, got {len(class_ids)}; there is no negative pair otherwise"
        )
    query = _check_is_query(is_query, len(y))
    unit = _normalise(x.to(device))
    if query is None:
        return _sorted_pairs(unit, classes, None, None, class_ids)
    return _sorted_pairs(unit, classes, np.flatnonzero(query), np.flatnonzero(~query), class_ids)


def _sorted_pairs(
    unit: torch.Tensor,
    classes: NDArray[np.int64],
    query: NDArray[np.int64] | None,
    gallery: NDArray[np.int64] | None,
    class_ids: NDArray[np.generic],
) -> Pairs:
    rows, row_class = _by_class(unit, classes, query)
    symmetric = gallery is None
    cols, col_class = (rows, row_class) if symmetric else _by_class(unit, classes, gallery)
    row_count = np.bincount(row_class, minlength=len(class_ids))
    col_count = np.bincount(col_class, minlength=len(class_ids))
    pairs = Pairs(rows, cols, row_class, col_class, row_count, col_count, class_ids, symmetric)
    if pairs.positive_pairs.sum() == 0 or pairs.total_negatives == 0:
        raise ValueError(
            f"there must be at least one positive and one negative pair, got {pairs.positive_pairs.sum()} and "
            f"{pairs.total_negatives}; give some class two images (or a query and a gallery image)"
        )
    return pairs


def _by_class(
    unit: torch.Tensor, classes: NDArray[np.int64], index: NDArray[np.int64] | None
) -> tuple[torch.Tensor, NDArray[np.int64]]:
    index = np.arange(len(classes)) if index is None else index
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
            f"embeddings must have a direction, row {row} is all zeros; a model that puts out zeros has collapsed"
        )
    unit = (x / norms).float()
    if bool(((unit - unit[0]).abs().amax() < 1e-4).item()):
        raise ValueError(
            f"embeddings have collapsed: all {len(x)} rows point the same way within 1e-4, so no metric "
            "means anything; lower the learning rate or look at the loss"
        )
    return unit


def _check_embeddings(embeddings: Array) -> torch.Tensor:
    x = torch.as_tensor(embeddings).detach()
    if not x.is_floating_point():
        raise ValueError(f"embeddings must be floating point, got {x.dtype}; convert them with .float()")
    if x.dtype != torch.float64:
        x = x.float()
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        where = [int(i) for i in (~finite).nonzero()[0]]
        raise ValueError(
            f"embeddings must be finite, got {(~finite).sum()} NaN or infinite values, the first at index {where}; "
            "the model has diverged"
        )
    return x


def _check_labels(labels: Array) -> NDArray[np.generic]:
    y = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if y.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, got {y.dtype}; map class names to ids first")
    return y


def _check_is_query(is_query: Array | None, count: int) -> NDArray[np.bool_] | None:
    if is_query is None:
        return None
    mask: NDArray[np.bool_] = np.asarray(is_query.cpu() if isinstance(is_query, torch.Tensor) else is_query)
    if mask.shape != (count,) or mask.dtype != np.bool_:
        raise ValueError(f"is_query must be [N] = [{count}] bool, got {mask.shape} {mask.dtype}")
    if mask.all() or not mask.any():
        raise ValueError(
            f"is_query must mark queries and leave a gallery, got {int(mask.sum())} queries of {count}; "
            "pass None when every image is both"
        )
    return mask

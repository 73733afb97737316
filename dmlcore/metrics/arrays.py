"""What evaluate() takes for embeddings, labels and queries, as arrays of the few types that it computes with.

Shapes: N images, D width.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray


def check_embeddings(embeddings: object) -> torch.Tensor:
    """Return finite embeddings [N, D] as float32, or float64 if they were wider.

    Raises:
        ValueError: not floating point, sparse, masked, NaN or infinite.
    """
    x = embeddings.detach() if isinstance(embeddings, torch.Tensor) else _tensor(_floats(embeddings))
    if x.layout != torch.strided:
        raise ValueError(f"embeddings must be a dense tensor, got {x.layout}; convert it with .to_dense()")
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


def _floats(embeddings: object) -> NDArray[np.generic]:
    """Return the array of what NumPy takes for one (a list, a DataFrame) in a form that torch takes."""
    if isinstance(embeddings, np.ma.MaskedArray) and np.ma.getmaskarray(embeddings).any():
        raise ValueError("embeddings must have no masked values; leave out those rows")
    try:
        array: NDArray[np.generic] = np.asarray(embeddings)
    except (ValueError, TypeError) as error:  # rows of different lengths
        raise ValueError(f"embeddings must be an array of numbers [N, D]: {error}") from None
    if array.dtype.kind != "f":
        raise ValueError(
            f"embeddings must be floating point, got {array.dtype}; convert them with .astype(np.float32)"
        )
    # torch knows neither longdouble, nor the other byte order, nor a negative stride.
    dtype = np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # beyond float64 it is infinite, and refused as such
        array = array.astype(dtype, copy=False)
    return np.ascontiguousarray(array) if any(stride < 0 for stride in array.strides) else array


def _tensor(array: NDArray[np.generic]) -> torch.Tensor:
    with warnings.catch_warnings():
        # A DataFrame and a memory map are read-only, and nothing here writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def check_labels(labels: object) -> NDArray[np.generic]:
    """Return labels as an array of integers or texts.

    Raises:
        ValueError: they are something else, or mixed.
    """
    if isinstance(labels, torch.Tensor):
        if labels.is_floating_point() or labels.is_complex():  # NumPy has no bfloat16
            raise ValueError(
                f"labels must be integers or texts, got {labels.dtype}; convert them with .long()"
            )
        labels = labels.detach().cpu().numpy()
    y: NDArray[np.generic] = np.asarray(labels)
    if y.dtype.kind == "O":
        y = _unboxed(y)
    if y.dtype.kind not in "iuSU":
        raise ValueError(f"labels must be integers or texts, got {y.dtype}; convert them with .astype(int)")
    return y


def _unboxed(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return Python's integers or texts, as a DataFrame holds them, as an array of that type."""
    kinds: list[type[object]] = [type(label) for label in labels.flat]
    if all(kind is not bool and issubclass(kind, int | np.integer) for kind in kinds):
        return labels.astype(np.int64)
    if all(issubclass(kind, str) for kind in kinds):
        return labels.astype(np.str_)
    other = next(row for row, kind in enumerate(kinds) if kind is not str)
    raise ValueError(
        f"labels must be all integers or all texts, label {other} is {labels.flat[other]!r:.40}; fill or convert it"
    )


def check_is_query(is_query: object, count: int) -> NDArray[np.bool_] | None:
    """Return the mask of the queries [N], None if there is none.

    Raises:
        ValueError: it is no mask of `count` images, or marks all or none of them.
    """
    if is_query is None:
        return None
    mask: NDArray[np.bool_] = np.asarray(is_query.cpu() if isinstance(is_query, torch.Tensor) else is_query)
    if mask.shape != (count,) or mask.dtype != np.bool_:
        raise ValueError(
            f"is_query must be [N] = [{count}] bool, got {mask.shape} {mask.dtype}; convert it with .astype(bool)"
        )
    if mask.all() or not mask.any():
        raise ValueError(
            f"is_query must mark some images and leave a gallery, got {int(mask.sum())} queries of {count}; "
            "pass None when every image is both"
        )
    return mask

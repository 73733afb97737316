"""What evaluate() takes for embeddings, labels, groups and queries, as arrays of the few types that it computes with.

Shapes: N images, D width.
"""

import warnings
from hashlib import blake2b
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.int64]
SAME_DIRECTION = 1e-4  # embeddings that differ by less are taken as one point
SMALLEST_SQUARED = 1e-12  # elements below this, or above its inverse, are scaled before they are squared
HASHED_ELEMENTS = 1 << 20  # 8 MiB at a time


class CollapsedError(ValueError):
    """Embeddings that cannot be told apart, so that no metric or no threshold has a meaning."""


def as_embeddings(embeddings: object) -> torch.Tensor:
    """Return embeddings [N, D] as float32, or float64 if they were wider.

    Raises:
        ValueError: not floating point, sparse or masked.
    """
    x = embeddings.detach() if isinstance(embeddings, torch.Tensor) else _tensor(_floats(embeddings))
    if x.layout != torch.strided:
        raise ValueError(f"embeddings must be a dense tensor, got {x.layout}; convert it with .to_dense()")
    if not x.is_floating_point():
        raise ValueError(f"embeddings must be floating point, got {x.dtype}; convert them with .float()")
    return x if x.dtype == torch.float64 else x.float()


def check_finite(x: torch.Tensor) -> None:
    """Refuse NaN and infinite values.

    Raises:
        ValueError: with the number of them, and the index of the first.
    """
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        where = [int(i) for i in (~finite).nonzero()[0]]
        raise ValueError(
            f"embeddings must be finite, got {(~finite).sum()} NaN or infinite values, the first at index {where}; "
            "the model has diverged"
        )


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


def check_labels(labels: object, name: str = "labels") -> NDArray[np.generic]:
    """Return labels, or the groups of images, as an array of integers or texts.

    Raises:
        ValueError: they are something else, or mixed.
    """
    if isinstance(labels, torch.Tensor):
        if labels.is_floating_point() or labels.is_complex():  # NumPy has no bfloat16
            raise ValueError(
                f"{name} must be integers or texts, got {labels.dtype}; convert them with .long()"
            )
        labels = labels.detach().cpu().numpy()
    y: NDArray[np.generic] = np.asarray(labels)
    if y.dtype.kind == "O":
        y = _unboxed(y, name)
    if y.dtype.kind not in "iuSU":
        raise ValueError(f"{name} must be integers or texts, got {y.dtype}; convert them with .astype(int)")
    return y


def _unboxed(labels: NDArray[np.generic], name: str) -> NDArray[np.generic]:
    """Return Python's integers or texts, as a DataFrame holds them, as an array of that type."""
    kinds: list[type[object]] = [type(label) for label in labels.flat]
    if all(kind is not bool and issubclass(kind, int | np.integer) for kind in kinds):
        return labels.astype(np.int64)
    if all(issubclass(kind, str) for kind in kinds):
        return labels.astype(np.str_)
    other = next(row for row, kind in enumerate(kinds) if kind is not str)
    raise ValueError(
        f"{name} must be all integers or all texts, {name[:-1]} {other} is {labels.flat[other]!r:.40}; fill or "
        "convert it"
    )


def check_groups(groups: object, images: int) -> NDArray[np.generic] | None:
    """Return the group of each image [N], None if there are none.

    Raises:
        ValueError: they are something else than integers or texts, or not one for each of so many images.
    """
    if groups is None:
        return None
    found = check_labels(groups, "groups")
    if found.shape != (images,):
        raise ValueError(f"groups must be [N] = [{images}], one for each embedding, got {found.shape}")
    return found


def kept_images(labels: NDArray[np.generic], ignored: int | str) -> NDArray[np.bool_]:
    """Return which images do not have the ignored label, [N].

    Raises:
        ValueError: it is a text and the labels are integers, or the other way round.
    """
    texts = labels.dtype.kind in "SU"
    if isinstance(ignored, bool) or isinstance(ignored, str) != texts:
        kind = "texts" if texts else "integers"
        raise ValueError(f"ignore_label must be of the kind of the labels, which are {kind}, got {ignored!r}")
    kept: NDArray[np.bool_] = (labels.astype(np.str_) if texts else labels) != ignored
    return kept


def check_is_query(is_query: object, images: int) -> NDArray[np.bool_] | None:
    """Return the mask of the queries [N], None if there is none.

    Raises:
        ValueError: it is no mask of so many images, or marks all or none of them.
    """
    if is_query is None:
        return None
    mask: NDArray[np.bool_] = np.asarray(is_query.cpu() if isinstance(is_query, torch.Tensor) else is_query)
    if mask.shape != (images,) or mask.dtype != np.bool_:
        raise ValueError(
            f"is_query must be [N] = [{images}] bool, got {mask.shape} {mask.dtype}; convert it with .astype(bool)"
        )
    if mask.all() or not mask.any():
        raise ValueError(
            f"is_query must mark some images and leave a gallery, got {int(mask.sum())} queries of {images}; "
            "pass None when every image is both"
        )
    return mask


def content_keys(unit: torch.Tensor) -> Ints:
    """Compute a number for each row, [N], from its content: equal for identical rows, and for no others."""
    keys = hash_rows(unit)
    for attempt in count():
        rows = _rows_that_collide(unit, keys)
        if not len(rows):
            break
        salt = attempt.to_bytes(
            8, "little"
        )  # two hashes at once are beyond who makes two rows collide in one
        for row, content in zip(rows, unit[torch.from_numpy(rows)].cpu().numpy(), strict=True):
            digest = blake2b(content.tobytes(), digest_size=8, salt=salt).digest()
            keys[row] = int.from_bytes(digest, "little", signed=True)
    return keys


def _rows_that_collide(unit: torch.Tensor, keys: Ints) -> Ints:
    """Return the rows whose key a different row has too. Not by chance, but a file can be made so."""
    order = np.argsort(keys, kind="stable")
    follows = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    step, shared = max(1, HASHED_ELEMENTS // unit.shape[1]), [np.empty(0, dtype=np.int64)]
    for first in range(0, len(follows), step):
        place = follows[first : first + step]
        one, other = (unit[torch.from_numpy(order[at])] for at in (place, place + 1))
        shared.append(keys[order[place[(one != other).any(dim=1).cpu().numpy()]]])
    return np.flatnonzero(np.isin(keys, np.concatenate(shared)))


def hash_rows(unit: torch.Tensor) -> Ints:
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
        raise CollapsedError(
            f"embeddings have collapsed: all {len(x)} rows point the same way within {SAME_DIRECTION:g}, so no "
            "metric has a meaning; lower the learning rate or check the loss"
        )
    return unit


def take_padded(unit: torch.Tensor, index: Ints, multiple: int) -> torch.Tensor:
    """Return the rows `index`, and rows of zeros up to a multiple of so many."""
    padded = -(-len(index) // multiple) * multiple
    x = unit.new_zeros(padded, unit.shape[1])
    torch.index_select(unit, 0, torch.from_numpy(index).to(unit.device), out=x[: len(index)])
    return x

"""All pairs of a batch at the cost of one matrix product.

A batch is sorted by class (classes of one size next to each other), so that the pairs within classes are square blocks
on the diagonal of the similarity matrix: positives become strided views instead of B x B masks or lists of pairs. A
kernel then computes the value of a loss and overwrites the similarities with the gradient: one B x B buffer in all.

Shapes: B batch, D embedding width, m classes of a group, n images of each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

# A chunk that stays in a core's cache: 2 MiB of float32 a thread (of 2^16 to 2^21 elements, 2^19 and 2^20 were fastest
# at B 2048 and 4000). GPUs want few, large kernels instead.
CHUNK_ELEMENTS_CPU = 2**19
CHUNK_ELEMENTS_GPU = 2**25


@dataclass(frozen=True)
class ClassGroup:
    """`num_classes` classes of `size` images each, in consecutive rows from `start` on."""

    start: int
    num_classes: int
    size: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.num_classes * self.size)


Kernel = Callable[..., Tensor]
"""([B, B] similarities sorted by class, groups, *numbers) -> scalar; overwrites the similarities with its gradient."""


KERNELS: dict[str, Kernel] = {}
"""By the name of the function, which is how an operator of a compiled graph knows one."""


def pair_kernel(kernel: Kernel) -> Kernel:
    """Register a kernel for compiled graphs; its further arguments must be numbers."""
    KERNELS[kernel.__name__] = kernel
    return kernel


def sort_by_class(labels: Tensor) -> tuple[Tensor, list[ClassGroup]]:
    """Find the order that puts each class in consecutive rows, small classes first, and the groups of equal size.

    Args:
        labels: [B], integer.

    Returns:
        order [B] on the CPU and the groups, which cover all B rows.
    """
    labels = (
        labels.cpu()
    )  # one transfer of labels on a GPU, none of those on the CPU; the groups are needed there
    classes, indices, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    order = (counts[indices] * len(classes) + indices).argsort(stable=True)
    sizes, num_classes = (part.tolist() for part in counts.unique(return_counts=True))
    groups, start = [], 0
    for size, number in zip(sizes, num_classes, strict=True):
        groups.append(ClassGroup(start, number, size))
        start += size * number
    return order, groups


def class_blocks(matrix: Tensor, group: ClassGroup) -> Tensor:
    """Return a [m, n, n] view of the within-class entries of a contiguous [B, B] matrix sorted by class."""
    # One class further is `size` rows and `size` columns further: a fixed stride, so that no index is needed.
    width = matrix.stride(0)
    offset = matrix.storage_offset() + group.start * (width + 1)
    return matrix.as_strided(
        (group.num_classes, group.size, group.size), (group.size * (width + 1), width, 1), offset
    )


def own_columns(values: Tensor, chunk: ClassGroup) -> Tensor:
    """Return a [m, ..., n] view of the columns of each class's own images, of contiguous [m, ..., B] values."""
    strides = values.stride()
    shape = (*values.shape[:-1], chunk.size)
    return values.as_strided(
        shape, (strides[0] + chunk.size, *strides[1:]), values.storage_offset() + chunk.start
    )


def off_diagonal_mask(size: int, device: torch.device) -> Tensor:
    """Return [n, n] bool: an image paired with the others of its class, not with itself."""
    return ~torch.eye(size, dtype=torch.bool, device=device)


def other_columns(size: int, rows: slice, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the indices [q, 1] and [q, n - 1] of the others of its class for each of q rows of [n, n] blocks.

    A mask would do the same, but an index by a mask waits for a GPU.
    """
    images = torch.arange(size, device=device)[rows].unsqueeze(1)
    others = torch.arange(size - 1, device=device)
    return images - (rows.start or 0), others + (others >= images)


def clear_single_images(matrix: Tensor, groups: list[ClassGroup]) -> None:
    """Set to zero the rows of images that have no positive."""
    for group in groups:
        if group.size == 1:
            matrix[group.rows].zero_()


def is_dual(values: Tensor) -> bool:
    """Tell whether forward differentiation runs through the values, as it does for a second derivative."""
    tangent = forward_ad.unpack_dual(values).tangent  # type: ignore[no-untyped-call]
    return tangent is not None


def row_chunks(matrix: Tensor) -> Iterator[Tensor]:
    """Yield [b, B] views of all rows, each small enough for the cache."""
    yield from torch.split(matrix, _rows_per_chunk(matrix.device, matrix.shape[1]))


def class_chunks(groups: list[ClassGroup], matrix: Tensor) -> Iterator[ClassGroup]:
    """Yield whole classes, as many at a time as fit the cache."""
    for group in groups:
        step = _rows_per_chunk(matrix.device, group.size * matrix.shape[1])
        for first in range(0, group.num_classes, step):
            number = min(step, group.num_classes - first)
            yield ClassGroup(group.start + first * group.size, number, group.size)


def query_chunks(groups: list[ClassGroup], matrix: Tensor) -> Iterator[tuple[ClassGroup, slice]]:
    """Yield classes and the queries among the images of each, for B numbers an ordered positive pair.

    All images of one or more classes as far as they fit the cache, else some images of one class. Classes of one image
    are left out.
    """
    for group in groups:
        step = _rows_per_chunk(matrix.device, max(group.size - 1, 1) * matrix.shape[1])
        classes, queries = max(step // group.size, 1), min(step, group.size)
        for first in range(0, group.num_classes if group.size > 1 else 0, classes):
            number = min(classes, group.num_classes - first)
            chunk = ClassGroup(group.start + first * group.size, number, group.size)
            for query in range(0, group.size, queries):
                yield chunk, slice(query, min(query + queries, group.size))


def _rows_per_chunk(device: torch.device, row_elements: int) -> int:
    elements = CHUNK_ELEMENTS_CPU * torch.get_num_threads() if device.type == "cpu" else CHUNK_ELEMENTS_GPU
    return max(1, elements // row_elements)

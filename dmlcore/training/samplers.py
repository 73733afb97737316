"""Batches of image indices: pure functions of (seed, epoch), so that any epoch can be drawn again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from dmlcore.core.seeding import keyed_generator

Indices = npt.NDArray[np.int64]
Share = Callable[[int], slice]
"""The number of rows of a batch -> those of this process."""


def class_balanced_batches(
    labels: Indices,
    *,
    batch_size: int,
    images_per_class: int,
    seed: int,
    epoch: int,
    num_batches: int | None = None,
) -> list[Indices]:
    """Batches of P = batch_size / images_per_class classes x K = images_per_class images.

    Every class comes up equally often: the classes are shuffled, cut into groups of P, and shuffled again when fewer
    than P are left. A class gives its images in shuffled order, and shuffles again when fewer than K are left. A class
    of fewer than K images gives all it has, so that no image is twice in a batch and the batch is that much
    smaller than `batch_size`.

    Args:
        labels: [N], the class of each image.
        batch_size: a multiple of `images_per_class`.
        images_per_class: K.
        seed: of the trial.
        epoch: which epoch's batches.
        num_batches: None: as many as hold about N images.

    Returns:
        Index arrays into `labels`, the images of a class side by side.

    Raises:
        ValueError: a batch size that does not fit, or fewer than P classes.
    """
    if images_per_class < 1 or batch_size < 1 or batch_size % images_per_class:
        raise ValueError(
            f"batch_size must be a multiple of images_per_class ({images_per_class}), got {batch_size}"
        )
    members = _members(np.asarray(labels))
    per_batch = batch_size // images_per_class
    if len(members) < per_batch:
        raise ValueError(
            f"a batch of {batch_size} takes {per_batch} classes x {images_per_class} images, "
            f"but there are {len(members)} classes; set batch_size to {len(members) * images_per_class} or less"
        )
    if num_batches is None:
        drawn = sum(min(len(images), images_per_class) for images in members) / len(members)
        num_batches = max(1, round(len(labels) / (per_batch * drawn)))
    random = keyed_generator(seed, "class-balanced batches", epoch)
    groups = _cycle(np.arange(len(members)), per_batch, random)
    images = [_cycle(own, min(len(own), images_per_class), random) for own in members]
    return [np.concatenate([next(images[one]) for one in next(groups)]) for _ in range(num_batches)]


def random_batches(
    num_images: int, *, batch_size: int, seed: int, epoch: int, num_batches: int | None = None
) -> list[Indices]:
    """Batches of any images: shuffled, cut into full batches, shuffled again when fewer than `batch_size` are left.

    Args:
        num_images: N.
        batch_size: images a batch.
        seed: of the trial.
        epoch: which epoch's batches.
        num_batches: None: the full batches of one pass.

    Returns:
        Index arrays of `batch_size` different images each.

    Raises:
        ValueError: fewer than `batch_size` images.
    """
    if not 1 <= batch_size <= num_images:
        raise ValueError(
            f"batch_size must be from 1 to the number of images ({num_images}), got {batch_size}"
        )
    random = keyed_generator(seed, "random batches", epoch)
    batches = _cycle(np.arange(num_images), batch_size, random)
    return [next(batches) for _ in range(num_images // batch_size if num_batches is None else num_batches)]


def _members(labels: Indices) -> list[Indices]:
    order = np.argsort(labels, kind="stable").astype(np.int64)
    _, starts = np.unique(labels[order], return_index=True)
    return np.split(order, starts[1:])


def _cycle(values: Indices, count: int, random: np.random.Generator) -> Iterator[Indices]:
    """`count` of `values` at a time without repeats; shuffles anew when fewer than `count` are left."""
    while True:
        order = random.permutation(values)
        for start in range(0, len(order) - count + 1, count):
            yield order[start : start + count]


def shares(count: int, parts: int) -> list[slice]:
    """Cut `count` rows into `parts` runs in their order whose lengths differ by at most one, the longer ones first."""
    ends = [part * (count // parts) + min(part, count % parts) for part in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def whole(count: int) -> slice:
    """Return all of `count` rows: the share of one process alone."""
    return slice(0, count)

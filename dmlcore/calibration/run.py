"""FAR and FRR of one threshold, set on validation for a target, pooled and by class: on validation and on test.

Shapes: C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.calibration.counts import Floats, Ints, count_accepted
from dmlcore.calibration.intervals import Rate, accept_rate, rate_bounds, reject_rate
from dmlcore.calibration.threshold import Target, Threshold, find_threshold
from dmlcore.metrics.inputs import Array, Pairs, build_pairs


@dataclass(frozen=True)
class SplitRates:
    """All counts of a split; arrays are [C] in the order of `labels`, which ascends."""

    labels: NDArray[np.generic]
    images: Ints
    positive_pairs: Ints
    rejected: Ints
    negative_pairs: Ints
    accepted: Ints
    far: Rate
    frr: Rate
    draws: dict[str, Ints]
    """`far`, `frr` -> independent draws behind a class's rate, at least so many, [C]."""
    under_two_labels: int = 0
    """Images identical to one of another class."""
    query_gallery: bool = False
    """Whether a pair is a query with a gallery image, and not any image with any other."""

    @property
    def class_far(self) -> Floats:
        """The accepted share of the pairs with exactly one end in the class."""
        return self.accepted / self.negative_pairs

    @property
    def class_frr(self) -> Floats:
        """The rejected share of the class's own pairs; NaN for a class without one."""
        return np.where(self.positive_pairs > 0, self.rejected / np.maximum(self.positive_pairs, 1), np.nan)

    def class_bounds(self, kind: str, level: float) -> tuple[Floats, Floats]:
        """Return lower and upper bounds of each class's FAR or FRR, both missed with probability `level` at most."""
        rates = self.class_far if kind == "far" else self.class_frr
        return rate_bounds(np.nan_to_num(rates), self.draws[kind], level)


def measure_rates(pairs: Pairs, similarity: float) -> SplitRates:
    """Apply a threshold to all pairs of a split.

    Args:
        pairs: of `dmlcore.metrics.inputs.build_pairs`.
        similarity: of the `Threshold`.
    """
    found = count_accepted(pairs, similarity)
    return SplitRates(
        pairs.class_ids,
        pairs.row_count if pairs.symmetric else pairs.row_count + pairs.col_count,
        pairs.positive_pairs,
        pairs.positive_pairs - found.positive,
        pairs.negative_pairs,
        found.negative,
        accept_rate(pairs, found),
        reject_rate(pairs, found),
        _independent_draws(pairs),
        pairs.under_two_labels,
        not pairs.symmetric,
    )


def _independent_draws(pairs: Pairs) -> dict[str, Ints]:
    """Count disjoint pairs of a class (FRR), and its images (FAR), of which each is compared with all others."""
    if pairs.symmetric:
        return {"far": pairs.row_count, "frr": pairs.row_count // 2}
    fewer, more = np.minimum(pairs.row_count, pairs.col_count), np.maximum(pairs.row_count, pairs.col_count)
    return {"far": np.where(fewer > 0, fewer, more), "frr": fewer}


@dataclass(frozen=True)
class Calibration:
    """A threshold set on validation, and its error rates there and, if it was given, on test."""

    target: Target
    threshold: Threshold
    validation: SplitRates
    test: SplitRates | None
    shared: int = 0
    """Images of test that are identical to one of validation."""

    @property
    def splits(self) -> dict[str, SplitRates]:
        """The measured splits by name, validation first."""
        return {"validation": self.validation} | ({"test": self.test} if self.test else {})

    @property
    def final(self) -> SplitRates:
        """The split whose classes are listed: test, or validation where there is no test."""
        return self.test or self.validation


def calibrate(
    validation: tuple[Array, Array],
    test: tuple[Array, Array] | None,
    target: Target,
    *,
    is_query: tuple[Array | None, Array | None] = (None, None),
    device: str | None = None,
    memory_bytes: int = 2**30,
) -> Calibration:
    """Set one threshold on validation and apply it to test.

    Args:
        validation: embeddings [N, D] and labels [N]; normalised here.
        test: embeddings [N', D] and labels [N'] of other images, as a rule of other classes; None: validation alone.
        target: the rate to keep on validation.
        is_query: of validation and of test, [N] bool: queries are compared with the gallery, the others; None: each
            image with every other of its split.
        device: where the products run, default the CPU.
        memory_bytes: bound on the working memory of the search for the threshold.

    Raises:
        ValueError: embeddings of different widths, NaN, collapse, fewer than 2 classes, no positive pair, a target
            finer than one pair.
    """
    place = torch.device(device or "cpu")
    held_out = _pairs("validation", validation, is_query[0], place)
    final = None if test is None else _pairs("test", test, is_query[1], place)
    if final and held_out.rows.shape[1] != final.rows.shape[1]:
        raise ValueError(
            "validation and test embeddings must have the same width, got "
            f"{held_out.rows.shape[1]} and {final.rows.shape[1]}; embed both with one model"
        )
    with torch.inference_mode():
        threshold = find_threshold(held_out, target, memory_bytes=memory_bytes)
        rates = measure_rates(held_out, threshold.similarity)
        if final is None:
            return Calibration(target, threshold, rates, None)
        shared = int(np.isin(final.image_keys, held_out.image_keys).sum())
        return Calibration(target, threshold, rates, measure_rates(final, threshold.similarity), shared)


def _pairs(name: str, labelled: tuple[Array, Array], is_query: Array | None, device: torch.device) -> Pairs:
    try:
        return build_pairs(*labelled, is_query, device)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None

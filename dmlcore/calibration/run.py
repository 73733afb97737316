"""FAR and FRR of one threshold, set on validation for a target, pooled and by class: on validation and on test.

Shapes: C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.calibration.counts import Floats, Ints, count_accepted
from dmlcore.calibration.groups import (
    GroupedPairs,
    GroupRates,
    GroupThreshold,
    group_pairs,
    group_thresholds,
    rates_by_group,
    stricter,
)
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
    groups: tuple[GroupRates, ...] = ()
    """The rates by group, where groups were given."""
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
        query_gallery=not pairs.symmetric,
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
    group_thresholds: tuple[GroupThreshold, ...] = ()
    """Of a target over each group."""

    @property
    def splits(self) -> dict[str, SplitRates]:
        """The measured splits by name, validation first."""
        return {"validation": self.validation} | ({"test": self.test} if self.test else {})

    @property
    def final(self) -> SplitRates:
        """The split whose classes are listed: test, or validation where there is no test."""
        return self.test or self.validation


@dataclass(frozen=True)
class SplitPairs:
    """The pairs of a split, and the same by group where groups were given."""

    pairs: Pairs
    grouped: GroupedPairs | None

    def measure(self, threshold: Threshold) -> SplitRates:
        """Apply a threshold to all pairs, and to those of each group."""
        rates = measure_rates(self.pairs, threshold.similarity)
        if self.grouped is None:
            return rates
        return replace(rates, groups=tuple(rates_by_group(self.grouped, threshold.similarity)))


def calibrate(
    validation: tuple[Array, Array],
    test: tuple[Array, Array] | None,
    target: Target,
    *,
    is_query: tuple[Array | None, Array | None] = (None, None),
    groups: tuple[Array | None, Array | None] = (None, None),
    device: str | None = None,
    memory_bytes: int = 2**30,
) -> Calibration:
    """Set one threshold on validation and apply it to test.

    Args:
        validation: embeddings [N, D] and labels [N]; normalised here.
        test: embeddings [N', D] and labels [N'] of other images, as a rule of other classes; None: validation alone.
        target: the rate to keep on validation, or for classes not seen.
        is_query: of validation and of test, [N] bool: queries are compared with the gallery, the others; None: each
            image with every other of its split.
        groups: of validation and of test, [N] integers or texts: what the rates are compared by.
        device: where the products run, default the CPU.
        memory_bytes: bound on the working memory of the search for the threshold.

    Raises:
        ValueError: embeddings of different widths, NaN, collapse, fewer than 2 classes, no positive pair, a target
            finer than one pair, a promise that so few classes cannot keep, a target over groups without groups.
    """
    place = torch.device(device or "cpu")
    held_out = _pairs("validation", validation, is_query[0], groups[0], place)
    final = None if test is None else _pairs("test", test, is_query[1], groups[1], place)
    if final and held_out.pairs.rows.shape[1] != final.pairs.rows.shape[1]:
        raise ValueError(
            "validation and test embeddings must have the same width, got "
            f"{held_out.pairs.rows.shape[1]} and {final.pairs.rows.shape[1]}; embed both with one model"
        )
    with torch.inference_mode():
        return _calibrate(held_out, final, target, memory_bytes)


def _calibrate(held_out: SplitPairs, final: SplitPairs | None, target: Target, memory: int) -> Calibration:
    thresholds: dict[int | str, Threshold] = {}
    if target.over == "all":
        threshold = find_threshold(held_out.pairs, target, memory_bytes=memory)
    elif held_out.grouped is None:
        raise ValueError("a target over groups needs --validation-groups; give them")
    else:
        thresholds = group_thresholds(held_out.grouped, target, memory)
        threshold = stricter(target, list(thresholds.values()))
    splits = {"validation": held_out} | ({"test": final} if final else {})
    own = (
        [_group_threshold(name, found, splits) for name, found in thresholds.items()]
        if target.over == "per_group"
        else []
    )
    rates = [split.measure(threshold) for split in splits.values()]
    shared = int(np.isin(final.pairs.image_keys, held_out.pairs.image_keys).sum()) if final else 0
    return Calibration(target, threshold, rates[0], rates[1] if final else None, shared, tuple(own))


def _group_threshold(name: int | str, found: Threshold, splits: dict[str, SplitPairs]) -> GroupThreshold:
    rates = {
        split: rates_by_group(part.grouped, found.similarity, int(group))[0]
        for split, part in splits.items()
        if part.grouped
        for group in np.flatnonzero(part.grouped.names == name)
    }
    return GroupThreshold(name, found, rates)


def _pairs(
    name: str,
    labelled: tuple[Array, Array],
    is_query: Array | None,
    groups: Array | None,
    device: torch.device,
) -> SplitPairs:
    try:
        grouped = None if groups is None else group_pairs(labelled, groups, is_query, device)
        return SplitPairs(build_pairs(*labelled, is_query, device), grouped)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None

"""A split as it is measured: all pairs of its images, those of queries and gallery, or pairs that come listed.

Shapes: C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.calibration.counts import Floats, Ints, count_accepted
from dmlcore.calibration.groups import GroupedPairs, GroupRates, group_pairs, rates_by_group
from dmlcore.calibration.identification import Identification, identify
from dmlcore.calibration.intervals import Rate, accept_rate, rate_bounds, reject_rate
from dmlcore.calibration.listed_pairs import ListedScores, listed_pairs
from dmlcore.calibration.scores import Curve, MatrixScores, Scores
from dmlcore.metrics.inputs import Array, Pairs, build_pairs

Compared = Literal["all", "query_gallery", "listed"]


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
    compared: Compared = "all"
    """Which pairs: any image with any other, a query with a gallery image, or those that were listed."""
    identification: Identification | None = None
    """Of queries and gallery: the errors of a search among all gallery images."""
    curve: Curve | None = None
    """The rates of other thresholds, if asked for."""

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
        compared="all" if pairs.symmetric else "query_gallery",
    )


def _independent_draws(pairs: Pairs) -> dict[str, Ints]:
    """Count disjoint pairs of a class (FRR), and its images (FAR), of which each is compared with all others."""
    if pairs.symmetric:
        return {"far": pairs.row_count, "frr": pairs.row_count // 2}
    fewer, more = np.minimum(pairs.row_count, pairs.col_count), np.maximum(pairs.row_count, pairs.col_count)
    return {"far": np.where(fewer > 0, fewer, more), "frr": fewer}


class Split(Protocol):
    """What a threshold is set on or applied to."""

    @property
    def scores(self) -> Scores: ...

    @property
    def image_keys(self) -> Ints: ...

    @property
    def width(self) -> int: ...

    def measure(self, similarity: float, *, curve: bool) -> SplitRates: ...


@dataclass(frozen=True)
class MatrixSplit:
    """All pairs of images with class labels, and the same by group where groups were given."""

    pairs: Pairs
    grouped: GroupedPairs | None
    deepest: float
    memory_bytes: int

    @cached_property
    def scores(self) -> MatrixScores:
        """The scores down to the rate `deepest`."""
        return MatrixScores(self.pairs, self.deepest, self.memory_bytes)

    @property
    def image_keys(self) -> Ints:
        return self.pairs.image_keys

    @property
    def width(self) -> int:
        return int(self.pairs.rows.shape[1])

    def measure(self, similarity: float, *, curve: bool) -> SplitRates:
        """Apply a threshold to all pairs, to those of each group, and to searches."""
        rates = measure_rates(self.pairs, similarity)
        return replace(
            rates,
            groups=tuple(rates_by_group(self.grouped, similarity)) if self.grouped else (),
            identification=None if self.pairs.symmetric else identify(self.pairs, similarity),
            curve=self.scores.curve() if curve else None,
        )


@dataclass(frozen=True)
class ListedSplit:
    """Pairs that come listed."""

    scores: ListedScores

    @property
    def image_keys(self) -> Ints:
        return self.scores.image_keys

    @property
    def width(self) -> int:
        return self.scores.width

    def measure(self, similarity: float, *, curve: bool) -> SplitRates:
        """Apply a threshold to the pairs; nothing is known of classes."""
        rates, none = self.scores.rates(similarity), np.zeros(0, dtype=np.int64)
        return SplitRates(
            *(none, np.array([self.scores.images]), none, none, none, none, rates["far"], rates["frr"]),
            draws={},
            compared="listed",
            curve=self.scores.curve() if curve else None,
        )


def matrix_split(
    name: str,
    labelled: tuple[Array, Array],
    is_query: Array | None,
    groups: Array | None,
    device: torch.device,
    search: tuple[float, int],
) -> MatrixSplit:
    """Build the pairs of a split; `search`: the largest share of negatives looked at, and bytes of memory.

    Raises:
        ValueError: see `calibrate`, with the name of the split.
    """
    try:
        grouped = None if groups is None else group_pairs(labelled, groups, is_query, device)
        return MatrixSplit(build_pairs(*labelled, is_query, device), grouped, *search)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def listed_split(name: str, listed: tuple[Array, Array, Array]) -> ListedSplit:
    """Build a split of listed pairs.

    Raises:
        ValueError: see `listed_pairs`, with the name of the split.
    """
    try:
        return ListedSplit(listed_pairs(*listed))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None

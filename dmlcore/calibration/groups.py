"""The rates of one threshold by group of images: camera, demographic, source; within each group and across.

Shapes: N images, C classes, G groups.

`within`: both images of the pair are of the group. `across`: one is of the group, the other of another; with queries
and a gallery it is the query that is of the group. No pair is left out: that two images of one class and one group are
no pair is a rule of evaluate()'s protocol, and `across` has its rates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.calibration.counts import Ints, count_accepted
from dmlcore.calibration.intervals import Rate, accept_rate, reject_rate
from dmlcore.calibration.scores import MatrixScores
from dmlcore.calibration.threshold import PAIRS_OF, Target, Threshold, threshold_of
from dmlcore.metrics.arrays import check_labels
from dmlcore.metrics.inputs import ROW_MULTIPLE, Array, Pairs, build_pairs

MOST_GROUPS = 200
PARTS = ("within", "across")


@dataclass(frozen=True)
class GroupRates:
    """One group: its images and classes, and `rates` by part and kind, None where there is no such pair."""

    name: int | str
    images: int
    classes: int
    rates: dict[str, dict[str, Rate | None]]


@dataclass(frozen=True)
class GroupThreshold:
    """A threshold of one group, and the group's rates at it by split."""

    name: int | str
    threshold: Threshold
    rates: dict[str, GroupRates]


@dataclass(frozen=True)
class GroupedPairs:
    """All pairs of a set, its images sorted by class, then group: `row_class [Q]`, `row_group [Q]`, columns alike."""

    pairs: Pairs
    row_class: Ints
    col_class: Ints
    row_group: Ints
    col_group: Ints
    names: NDArray[np.generic]

    def cells(self, group: int) -> Iterator[tuple[str, Pairs | None]]:
        """Yield the pairs within a group and across; None where they have fewer than two classes."""
        rows, cols = self.row_group == group, self.col_group == group
        yield "within", self._cell(rows, cols, self.pairs.symmetric)
        yield "across", self._cell(rows, ~cols, False)

    def _cell(self, rows: NDArray[np.bool_], cols: NDArray[np.bool_], symmetric: bool) -> Pairs | None:
        row_class, col_class = self.row_class[rows], self.col_class[cols]
        class_ids = np.union1d(row_class, col_class)
        if not rows.any() or not cols.any() or len(class_ids) < 2:
            return None
        row, col = np.searchsorted(class_ids, row_class), np.searchsorted(class_ids, col_class)
        x = _take(self.pairs.rows, rows)
        found = replace(
            self.pairs,
            **_indexed(self.pairs, "row", rows),
            **_indexed(self.pairs, "col", cols),
            rows=x,
            cols=x if symmetric else _take(self.pairs.cols, cols),
            row_class=row,
            col_class=col,
            row_count=np.bincount(row, minlength=len(class_ids)),
            col_count=np.bincount(col, minlength=len(class_ids)),
            class_ids=class_ids,
            symmetric=symmetric,
        )
        return found if found.total_negatives or found.positive_pairs.any() else None


def _indexed(pairs: Pairs, side: str, keep: NDArray[np.bool_]) -> dict[str, Any]:
    """Return what Pairs knows of each row (or column) image, of those kept; classes and counts are made anew."""
    made = (f"{side}_class", f"{side}_count")
    names = [f.name for f in fields(pairs) if f.name.startswith(f"{side}_") and f.name not in made]
    return {name: getattr(pairs, name)[keep] for name in names}


def _take(x: torch.Tensor, keep: NDArray[np.bool_]) -> torch.Tensor:
    index = torch.from_numpy(np.flatnonzero(keep)).to(x.device)
    padded = x.new_zeros(-(-len(index) // ROW_MULTIPLE) * ROW_MULTIPLE, x.shape[1])
    padded[: len(index)] = x[index]
    return padded


def group_pairs(
    labelled: tuple[Array, Array], groups: Array, is_query: Array | None, device: torch.device
) -> GroupedPairs:
    """Sort the images by class and group.

    Raises:
        ValueError: groups of another length, a single one, or more than 200.
    """
    labels, values = check_labels(labelled[1]), check_groups(groups, len(labelled[1]))
    (_, y), (names, g) = (np.unique(part, return_inverse=True) for part in (labels, values))
    if not 2 <= len(names) <= MOST_GROUPS:
        raise ValueError(
            f"groups must have 2 to {MOST_GROUPS} different values, got {len(names)}; give what you want the rates "
            "compared by: camera, source, demographic"
        )
    # One label for each class in each group: what sorts the images by both.
    pairs = build_pairs(labelled[0], y * len(names) + g, is_query, device, both_kinds=False)
    both: Ints = pairs.class_ids.astype(np.int64)
    rows, cols = both[pairs.row_class], both[pairs.col_class]
    return GroupedPairs(
        pairs, rows // len(names), cols // len(names), rows % len(names), cols % len(names), names
    )


def check_groups(groups: Array, count: int) -> NDArray[np.generic]:
    """Return groups [N] as integers or texts.

    Raises:
        ValueError: they are something else, or not one for each image.
    """
    try:
        values = check_labels(groups)
    except ValueError as error:
        raise ValueError(f"{error}".replace("labels must", "groups must")) from None
    if values.shape != (count,):
        raise ValueError(f"groups must be [N] = [{count}], one for each image, got {list(values.shape)}")
    return values


def rates_by_group(grouped: GroupedPairs, similarity: float, only: int | None = None) -> list[GroupRates]:
    """Apply a threshold to the pairs of each group (or of one), within and across."""
    found = []
    for group, name in enumerate(grouped.names):
        if only not in (None, group):
            continue
        rates = {part: _rates(pairs, similarity) for part, pairs in grouped.cells(group)}
        rows, cols = grouped.row_group == group, grouped.col_group == group
        classes = np.union1d(grouped.row_class[rows], grouped.col_class[cols])
        images = int(rows.sum()) if grouped.pairs.symmetric else int(rows.sum() + cols.sum())
        found.append(GroupRates(_plain(name), images, len(classes), rates))
    return found


def _plain(name: np.generic) -> int | str:
    value: int | str = name.item()
    return value


def _rates(pairs: Pairs | None, similarity: float) -> dict[str, Rate | None]:
    if pairs is None:
        return {"far": None, "frr": None}
    found = count_accepted(pairs, similarity)
    return {
        "far": accept_rate(pairs, found) if pairs.total_negatives else None,
        "frr": reject_rate(pairs, found) if pairs.positive_pairs.any() else None,
    }


def group_thresholds(grouped: GroupedPairs, target: Target, memory_bytes: int) -> dict[int | str, Threshold]:
    """Find the threshold of each group that keeps the target both within it and across.

    With a confidence, all of them keep it at once: each part's share of 1 - confidence is the same (Bonferroni).

    Raises:
        ValueError: a part has too few pairs or classes for the target, or no part has a pair of its kind.
    """
    parts = [
        (group, part, pairs)
        for group in range(len(grouped.names))
        for part, pairs in grouped.cells(group)
        if pairs is not None
        and (pairs.total_negatives if target.kind == "far" else pairs.positive_pairs.any())
    ]
    if not parts:
        raise ValueError(
            f"no group has a {PAIRS_OF[target.kind]} pair; give other groups, or one threshold for all"
        )
    if target.confidence is not None:
        target = replace(target, confidence=1.0 - (1.0 - target.confidence) / len(parts))
    found: dict[int | str, Threshold] = {}
    for group, part, pairs in parts:
        name = _plain(grouped.names[group])
        try:
            one = threshold_of(MatrixScores(pairs, target.limit, memory_bytes), target)
        except ValueError as error:
            raise ValueError(f"{part} group {name!r}: {error}") from None
        found[name] = stricter(target, [found.get(name, one), one])
    return found


def stricter(target: Target, thresholds: list[Threshold]) -> Threshold:
    """Return the threshold that keeps the target wherever one of them does: the smallest distance for a FAR."""
    choose = max if target.kind == "far" else min
    return choose(thresholds, key=lambda threshold: threshold.similarity)

"""FAR and FRR of one threshold, set on validation for a target, pooled and by class: on validation and on test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dmlcore.calibration.groups import GroupThreshold, group_thresholds, rates_by_group, stricter
from dmlcore.calibration.reference import reference
from dmlcore.calibration.splits import (
    MatrixSplit,
    Split,
    SplitRates,
    listed_split,
    matrix_split,
)
from dmlcore.calibration.threshold import Target, Threshold, deepest, threshold_of
from dmlcore.metrics.evaluation import find_device
from dmlcore.metrics.inputs import Array

Listed = tuple[Array, Array, Array]


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
    reference: dict[str, Any] | None = None
    """What `monitor` compares new data with, if asked for; see `dmlcore.calibration.reference`."""

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
    return calibrate_targets(
        validation, test, [target], is_query=is_query, groups=groups, device=device, memory_bytes=memory_bytes
    )[0]


def calibrate_targets(
    validation: tuple[Array, Array],
    test: tuple[Array, Array] | None,
    targets: Sequence[Target],
    *,
    is_query: tuple[Array | None, Array | None] = (None, None),
    groups: tuple[Array | None, Array | None] = (None, None),
    device: str | None = None,
    memory_bytes: int = 2**30,
    curves: bool = False,
    references: bool = False,
) -> list[Calibration]:
    """Set a threshold for each of several targets; see `calibrate`.

    Args:
        validation, test, is_query, groups, device, memory_bytes: as of `calibrate`.
        targets: one or more.
        curves: whether the rates of other thresholds are wanted, too, as for a plot.
        references: whether the cards are to serve `dmlcore monitor`; of queries and gallery there is none.
    """
    place = find_device(device or "cpu")
    search = 1.0 if curves else deepest(targets), memory_bytes
    held_out = matrix_split("validation", validation, is_query[0], groups[0], place, search)
    final = None if test is None else matrix_split("test", test, is_query[1], groups[1], place, search)
    with torch.inference_mode():
        held_out.scores.check_collapse()
        found = _calibrate(held_out, final, targets, curves)
        if not references or is_query[0] is not None:
            return found
        return [replace(one, reference=reference(*validation, one.threshold.similarity)) for one in found]


def calibrate_pairs(
    validation: Listed, test: Listed | None, targets: Sequence[Target], *, curves: bool = False
) -> list[Calibration]:
    """Set a threshold on pairs that come listed, for each target.

    Args:
        validation: embeddings [P, D] and [P, D], whose rows k are a pair, and labels [P], 1 same and 0 different.
        test: the same of other pairs; None: validation alone.
        targets: one or more, over all pairs.
        curves: as of `calibrate_targets`.

    Raises:
        ValueError: as of `calibrate`.
    """
    final = None if test is None else listed_split("test", test)
    return _calibrate(listed_split("validation", validation), final, targets, curves)


def _calibrate(
    held_out: Split, final: Split | None, targets: Sequence[Target], curves: bool
) -> list[Calibration]:
    if final and held_out.width != final.width:
        raise ValueError(
            f"validation and test embeddings must have the same width, got {held_out.width} and {final.width}; embed "
            "both with one model"
        )
    shared = int(np.isin(final.image_keys, held_out.image_keys).sum()) if final else 0
    splits = {"validation": held_out} | ({"test": final} if final else {})
    found = []
    for target in targets:
        threshold, own = _thresholds(held_out, target)
        rates = [split.measure(threshold.similarity, curve=curves) for split in splits.values()]
        groups = [_group_threshold(name, one, splits) for name, one in own.items()]
        found.append(
            Calibration(target, threshold, rates[0], rates[1] if final else None, shared, tuple(groups))
        )
    return found


def _thresholds(held_out: Split, target: Target) -> tuple[Threshold, dict[int | str, Threshold]]:
    """Return the one threshold, and those of the groups where each has its own."""
    if target.over == "all":
        return threshold_of(held_out.scores, target), {}
    if not isinstance(held_out, MatrixSplit) or held_out.grouped is None:
        raise ValueError("a target over groups needs --validation-groups; give them")
    own = group_thresholds(held_out.grouped, target, held_out.memory_bytes)
    return stricter(target, list(own.values())), own if target.over == "per_group" else {}


def _group_threshold(name: int | str, found: Threshold, splits: dict[str, Split]) -> GroupThreshold:
    rates = {
        split: rates_by_group(part.grouped, found.similarity, int(group))[0]
        for split, part in splits.items()
        if isinstance(part, MatrixSplit) and part.grouped
        for group in np.flatnonzero(part.grouped.names == name)
    }
    return GroupThreshold(name, found, rates)

"""Pairs that come labelled one by one (same or not), as face verification sets do, instead of classes.

Shapes: P pairs, D width, I different images among their ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.calibration.counts import Floats, Ints
from dmlcore.calibration.intervals import Rate, interval_of
from dmlcore.calibration.scores import Curve, Value, above_all, spread_points
from dmlcore.metrics.arrays import as_embeddings, check_finite, check_labels, content_keys, normalise
from dmlcore.metrics.inputs import Array

MOST_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class ListedScores:
    """Listed pairs by similarity; an image is what its embedding holds: equal rows are one image.

    `similarity [P]` float32; `same [P]`; `first [P]`, `second [P]`: the images at its ends, in 0..I-1;
    `image_keys [I]` their content as a number; `width` D.
    """

    similarity: NDArray[np.float32]
    same: NDArray[np.bool_]
    first: Ints
    second: Ints
    image_keys: Ints
    width: int

    @property
    def totals(self) -> tuple[int, int]:
        return int(self.same.sum()), int((~self.same).sum())

    @property
    def images(self) -> int:
        return len(self.image_keys)

    def reached_by(self, negatives: int) -> float | None:
        nearest = np.sort(self.similarity[~self.same])[::-1]
        distinct, count = np.unique(-nearest, return_counts=True)
        kept = int(np.searchsorted(np.cumsum(count), negatives, side="right"))
        return float(-distinct[kept - 1]) if kept else above_all(float(nearest[0]))

    def of_positive(self, rank: int) -> float:
        return float(np.sort(self.similarity[self.same])[-rank])

    def rates(self, similarity: float) -> dict[str, Rate]:
        accepted = self.similarity >= np.float32(similarity)
        return {
            "far": self._rate(accepted[~self.same], ~self.same),
            "frr": self._rate(~accepted[self.same], self.same),
        }

    def _rate(self, wrong: NDArray[np.bool_], of: NDArray[np.bool_]) -> Rate:
        """Estimate the rate, its variance robust to pairs that share an image (dyadic, as between classes)."""
        errors, pairs = int(wrong.sum()), len(wrong)
        residual = wrong - errors / pairs
        ends = self.first[of], self.second[of]
        by_image = np.bincount(ends[0], residual, self.images) + np.bincount(ends[1], residual, self.images)
        _, same_ends = np.unique(np.sort(np.stack(ends), axis=0), axis=1, return_inverse=True)
        own = np.bincount(same_ends.ravel(), residual)
        used = len(np.unique(np.concatenate(ends)))
        shared, alone = float(by_image @ by_image), float(own @ own)
        return interval_of(errors, pairs, max(shared - alone, alone) / pairs**2, used, used // 2)

    def best(self, value: Value) -> float | None:
        similarity, accepted, false = self._accepted()
        values = value(accepted, false)
        at = int(np.argmax(values))
        return float(similarity[at]) if np.isfinite(values[at]) else None

    def curve(self) -> Curve:
        similarity, accepted, false = self._accepted()
        keep = spread_points(false, accepted)
        totals = self.totals
        return Curve(similarity[keep], false[keep] / totals[1], 1.0 - accepted[keep] / totals[0])

    def _accepted(self) -> tuple[Floats, Floats, Floats]:
        """Return the different similarities from near to far, and the pairs of both kinds that reach each."""
        order = np.argsort(-self.similarity, kind="stable")
        similarity = self.similarity[order]
        last = np.flatnonzero(np.append(similarity[1:] != similarity[:-1], True))
        accepted: Floats = np.cumsum(self.same[order])[last].astype(np.float64)
        false: Floats = last + 1.0 - accepted
        return similarity[last].astype(np.float64), accepted, false


def listed_pairs(first: Array, second: Array, same: Array) -> ListedScores:
    """Compare row k of `first [P, D]` with row k of `second [P, D]`; `same [P]`: 1 of one class, 0 of two.

    Raises:
        ValueError: shapes that do not fit, labels other than 0 and 1, or one kind of pairs alone.
    """
    a, b, y = (
        as_embeddings(first),
        as_embeddings(second),
        check_labels(np.asarray(same).astype(np.int64)),
    )
    if a.ndim != 2 or a.shape != b.shape or y.shape != (len(a),):
        raise ValueError(
            f"pairs must be two arrays [P, D] and labels [P], got {tuple(a.shape)}, {tuple(b.shape)} and {y.shape}"
        )
    if set(np.unique(y).tolist()) != {0, 1}:
        raise ValueError(
            f"labels of pairs must be 1 (same) and 0 (different), both among them, got {np.unique(y)[:5].tolist()}"
        )
    for part in (a, b):
        check_finite(part)
    unit = normalise(torch.cat([a, b.to(a.dtype)]))
    keys = content_keys(unit)
    distinct, image = np.unique(keys, return_inverse=True)
    count = len(a)
    similarity = np.empty(count, dtype=np.float32)
    for start in range(0, count, MOST_AT_ONCE):
        stop = min(start + MOST_AT_ONCE, count)
        products = unit[start:stop] * unit[count + start : count + stop]
        similarity[start:stop] = products.sum(dim=1).clamp(max=1.0).numpy()
    similarity[image[:count] == image[count:]] = 1.0
    return ListedScores(similarity, y == 1, image[:count], image[count:], distinct, a.shape[1])

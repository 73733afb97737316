"""From the counts of a sweep to the numbers of an Evaluation that are about classes.

Shapes: C classes, K cuts = the T thresholds and the fixed rates' distances, merged, S splits, B bootstrap draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics import class_counts, consistency
from dmlcore.metrics.arrays import CollapsedError
from dmlcore.metrics.consistency import Floats
from dmlcore.metrics.halves import divisions_left, draw_splits, splittable
from dmlcore.metrics.inputs import REPORTED_FARS, Ints, Pairs, Settings, Split
from dmlcore.metrics.pairwise.order_statistics import distance, similarity_cuts
from dmlcore.metrics.pairwise.sweep import Sweep
from dmlcore.metrics.verification import OperatingPoints

GLOBAL_FAR = 0.01  # the operating point of Evaluation.frr and .far
SPLITS = (9, 6, 3, 2)  # of each class into halves; of 4 images there are 3 divisions, of 5 and 6 there are 10
MAX_PAIR_VISITS = 20_000_000  # positive pairs over all splits: with many pairs a class few splits are enough
COLLAPSED_DISTANCE = 1e-3  # float32 similarities resolve distances down to about 4e-4


@dataclass(frozen=True)
class ThresholdGrid:
    """`thresholds [T]`: distances; `cuts [K]`: similarities, descending; where each threshold and rate is in them."""

    thresholds: Floats
    cuts: NDArray[np.float32]
    threshold_index: Ints
    rate_index: dict[float, int]


def build_grid(points: OperatingPoints, settings: Settings) -> ThresholdGrid:
    """Place the thresholds of OPIS; those at its ends are the order statistics themselves, to the bit."""
    if settings.distance_range is not None:
        thresholds = np.linspace(*settings.distance_range, settings.num_thresholds)
        cuts = similarity_cuts(thresholds)
    else:
        near, far = (np.float32(points.similarity[rate]) for rate in settings.far_range)
        thresholds = np.linspace(distance(float(near)), distance(float(far)), settings.num_thresholds)
        cuts = np.clip(similarity_cuts(thresholds), far, near)
        # Through distance and back the last bit may move, and with it the pair that the rate was set by.
        cuts[0], cuts[-1] = near, far
    rates = np.array([points.similarity[rate] for rate in REPORTED_FARS], dtype=np.float32)
    merged = np.unique(np.concatenate([cuts, rates]))[::-1]
    rate_index = dict(zip(REPORTED_FARS, np.searchsorted(-merged, -rates).tolist(), strict=True))
    return ThresholdGrid(thresholds, merged, np.searchsorted(-merged, -cuts), rate_index)


def check_collapse(points: OperatingPoints, total: int) -> None:
    """Refuse embeddings where a tenth of the negative pairs cannot be told from identical ones."""
    far = REPORTED_FARS[0]
    if total >= 100 and distance(points.similarity[far]) < COLLAPSED_DISTANCE:
        raise CollapsedError(
            f"embeddings have collapsed: {far:.0%} of the {total} pairs of different classes are nearer than "
            f"{COLLAPSED_DISTANCE} (float32 noise), so thresholds have no meaning; lower the learning rate or check "
            "the loss"
        )


@dataclass(frozen=True)
class ClassScores:
    """Of the classes with a positive pair: `utility [C, T]`, `frr [C]`, `far [C]`, their `labels [C]`."""

    utility: Floats
    frr: Floats
    far: Floats
    labels: NDArray[np.generic]
    metrics: dict[str, float]


def score_classes(pairs: Pairs, sweep: Sweep, grid: ThresholdGrid, settings: Settings) -> ClassScores:
    """Count at the cuts, then compute everything that is about classes."""
    tables = sweep.count_at(grid.cuts)
    splits = _draw_splits(pairs)
    positive, half_positive = sweep.positives_at(grid.cuts, splits)
    negative = class_counts.negatives_at(pairs, sweep, tables)
    rates = class_counts.class_rates(positive, pairs.positive_pairs, negative, pairs.negative_pairs)
    keep, at = pairs.positive_pairs > 0, grid.rate_index[GLOBAL_FAR]
    utility = consistency.utility(*rates)[keep][:, grid.threshold_index]
    halves = class_counts.half_utilities(
        pairs, sweep, splits, (positive, half_positive), negative, tables, grid.threshold_index
    )
    accepted = positive.sum(axis=0) / pairs.positive_pairs.sum()
    metrics = {f"tar_at_far_{rate}": float(accepted[index]) for rate, index in grid.rate_index.items()}
    metrics |= consistency_metrics(utility, halves, divisions_left(pairs, len(splits)), settings)
    large = splittable(pairs)
    return ClassScores(
        utility,
        1.0 - positive[keep, at] / pairs.positive_pairs[keep],
        negative[keep, at] / pairs.negative_pairs[keep],
        pairs.class_ids[keep],
        metrics
        | {
            "num_classes": int(keep.sum()),
            "num_singleton_classes": int((~keep).sum()),
            "num_images_under_two_labels": pairs.under_two_labels,
            "num_classes_too_small_for_correction": int((keep & ~large).sum()),
        },
    )


def _draw_splits(pairs: Pairs) -> list[Split]:
    cost = int(pairs.positive_pairs.sum()) + 400 * len(pairs.class_ids)  # pairs visited, and tables filled
    number = next((number for number in SPLITS if number * cost <= MAX_PAIR_VISITS), SPLITS[-1])
    return draw_splits(pairs, number)


def consistency_metrics(
    utility: Floats, halves: Iterator[tuple[Floats, Floats]], not_seen: Floats, settings: Settings
) -> dict[str, float]:
    """Compute OPIS in its forms, and the intervals when asked for."""
    raw, draws = consistency.opis(utility), settings.bootstrap
    rng = np.random.default_rng(settings.seed)
    raw_weights = consistency.bootstrap_weights(len(utility), draws, rng)
    corrected, error, bounds = float("nan"), float("nan"), (float("nan"), float("nan"))
    if len(not_seen) >= 2:
        drawn = consistency.bootstrap_weights(len(not_seen), draws, rng)
        weights = np.concatenate([np.ones((1, len(not_seen))), drawn])
        values, error = consistency.corrected_opis(halves, weights, not_seen)
        corrected, bounds = float(values[0]), consistency.percentile_interval(values[1:])
    metrics = {
        "opis": raw,
        "opis_corrected": corrected,
        "opis_corrected_error": error,
        "opis_floor": raw - corrected,
        "epsilon_opis": consistency.epsilon_opis(utility, settings.epsilon),
        "mean_utility": float(consistency.range_mean(utility.mean(axis=0))),
    }
    if not draws:
        return metrics
    low, high = consistency.percentile_interval(consistency.bootstrap_opis(utility, raw_weights))
    return metrics | {
        "opis_low": bounds[0],
        "opis_high": bounds[1],
        "opis_raw_low": low,
        "opis_raw_high": high,
    }

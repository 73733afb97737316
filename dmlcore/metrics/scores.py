"""From the counts of a walk to the numbers of an Evaluation.

Shapes: C classes, K cuts = the T thresholds and the fixed rates' distances, merged, S splits, B bootstrap draws.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics import consistency, counts
from dmlcore.metrics.consistency import Floats
from dmlcore.metrics.inputs import Pairs
from dmlcore.metrics.pairwise.order_statistics import distance, similarity_cuts
from dmlcore.metrics.pairwise.sweep import Sweep
from dmlcore.metrics.settings import REPORTED_FARS, Settings
from dmlcore.metrics.verification import GLOBAL_FAR, OperatingPoints

MOST_SPLITS = 8  # of each class into halves; more no longer narrow opis_corrected
MOST_VISITS = (
    20_000_000  # positive pairs visited over all splits: with many pairs a class one split is enough
)
COLLAPSED_DISTANCE = 1e-3  # float32 similarities resolve distances down to about 4e-4
SPLIT_STREAM, BOOTSTRAP_STREAM = 0, 1


@dataclass(frozen=True)
class Grid:
    """`thresholds [T]` distances; `cuts [K]` similarities, descending; which cuts are the thresholds and the rates."""

    thresholds: Floats
    cuts: NDArray[np.float32]
    steps: NDArray[np.int64]
    rate_step: dict[float, int]


def build_grid(points: OperatingPoints, settings: Settings) -> Grid:
    """The thresholds of OPIS; those at its ends are the order statistics themselves, to the bit."""
    if settings.distance_range is not None:
        thresholds = np.linspace(*settings.distance_range, settings.num_thresholds)
        cuts = similarity_cuts(thresholds)
    else:
        near, far = (np.float32(points.similarity[rate]) for rate in settings.far_range)
        thresholds = np.linspace(distance(float(near)), distance(float(far)), settings.num_thresholds)
        cuts = np.clip(similarity_cuts(thresholds), far, near)
        cuts[0], cuts[-1] = near, far
    rates = np.array([points.similarity[rate] for rate in REPORTED_FARS], dtype=np.float32)
    merged = np.unique(np.concatenate([cuts, rates]))[::-1]
    place = dict(zip(REPORTED_FARS, np.searchsorted(-merged, -rates).tolist(), strict=True))
    return Grid(thresholds, merged, np.searchsorted(-merged, -cuts), place)


def check_collapse(points: OperatingPoints, total: int) -> None:
    """Refuse embeddings where a tenth of the negative pairs cannot be told from identical ones."""
    far = REPORTED_FARS[0]
    if total >= 100 and distance(points.similarity[far]) < COLLAPSED_DISTANCE:
        raise ValueError(
            f"embeddings have collapsed: {far:.0%} of the {total} pairs of different classes are nearer than "
            f"{COLLAPSED_DISTANCE} (float32 noise), so thresholds mean nothing; "
            "lower the learning rate or look at the loss"
        )


@dataclass(frozen=True)
class ClassScores:
    """Of the classes with a positive pair: `utility [C, T]`, `frr [C]`, `far [C]`, their `labels [C]`."""

    utility: Floats
    frr: Floats
    far: Floats
    labels: NDArray[np.generic]
    metrics: dict[str, float]


def score_classes(pairs: Pairs, sweep: Sweep, grid: Grid, settings: Settings) -> ClassScores:
    """Count at the cuts, then everything that is about classes."""
    tables = sweep.count_at(grid.cuts)
    splits = _draw_splits(pairs, settings)
    positive, half_positive = sweep.positives_at(grid.cuts, splits)
    negative = counts.negatives_at(pairs, tables)
    utility = consistency.utility(
        *counts.shares(positive, pairs.positive_pairs, negative, pairs.negative_pairs)
    )
    keep, at = pairs.positive_pairs > 0, grid.rate_step[GLOBAL_FAR]
    halves = counts.half_utilities(pairs, splits, (positive, half_positive), negative, tables, grid.steps)
    accepted = positive.sum(axis=0) / pairs.positive_pairs.sum()
    metrics = {f"tar_at_far_{rate}": float(accepted[step]) for rate, step in grid.rate_step.items()}
    metrics |= consistency_metrics(utility[keep][:, grid.steps], list(halves), settings)
    return ClassScores(
        utility[keep][:, grid.steps],
        1.0 - positive[keep, at] / pairs.positive_pairs[keep],
        negative[keep, at] / pairs.negative_pairs[keep],
        pairs.class_ids[keep],
        metrics | class_counts(pairs),
    )


def _draw_splits(pairs: Pairs, settings: Settings) -> list[counts.Split]:
    cost = int(pairs.positive_pairs.sum()) + 400 * len(pairs.class_ids)  # pairs visited, and tables filled
    number = max(1, min(MOST_SPLITS, MOST_VISITS // cost))
    rng = np.random.default_rng((settings.seed, SPLIT_STREAM))
    return [counts.draw_split(pairs, rng) for _ in range(number)]


def consistency_metrics(
    utility: Floats, halves: list[tuple[Floats, Floats]], settings: Settings
) -> dict[str, float]:
    """OPIS in its forms, and the intervals when asked for."""
    whole = np.ones((1, len(halves[0][0]))) if halves else None
    corrected = float("nan") if whole is None else float(consistency.corrected_opis(halves, whole)[0])
    raw = consistency.opis(utility)
    metrics = {
        "opis": raw,
        "opis_corrected": corrected,
        "opis_floor": raw - corrected,
        "epsilon_opis": consistency.epsilon_opis(utility, settings.epsilon),
        "mean_utility": float(consistency.range_mean(utility.mean(axis=0))),
    }
    return metrics | (_intervals(utility, halves, settings) if settings.bootstrap else {})


def _intervals(utility: Floats, halves: list[tuple[Floats, Floats]], settings: Settings) -> dict[str, float]:
    rng = np.random.default_rng((settings.seed, BOOTSTRAP_STREAM))
    raw = consistency.raw_draws(utility, consistency.class_draws(len(utility), settings.bootstrap, rng))
    low, high = consistency.interval(raw)
    bounds = (float("nan"), float("nan"))
    if halves:
        draws = consistency.class_draws(len(halves[0][0]), settings.bootstrap, rng)
        bounds = consistency.interval(consistency.corrected_opis(halves, draws))
    return {"opis_low": bounds[0], "opis_high": bounds[1], "opis_raw_low": low, "opis_raw_high": high}


def class_counts(pairs: Pairs) -> dict[str, float]:
    """Classes that count, and those that were left out."""
    some, large = pairs.positive_pairs > 0, counts.splittable(pairs)
    return {
        "num_classes": int(some.sum()),
        "num_singleton_classes": int((~some).sum()),
        "num_classes_too_small_for_correction": int((some & ~large).sum()),
    }

"""opis_corrected: 0 on classes of one law, the true spread where there is one, whatever the number of images."""

import numpy as np
import pytest

from dmlcore.metrics.evaluation import evaluate
from dmlcore.metrics.halves import balanced_halves, divisions, share_not_seen
from tests.metrics.samples import draw

# As many classes as bring 5 % of raw to about 3 standard errors of 200 draws: fewer, and chance alone fails a case.
SIZES = {
    "5": [5] * 120,
    "12": [12] * 100,
    "60": [60] * 40,
    "mixed": [4, 5, 7, 12, 20, 40] * 15,
    "mixed with tiny": [2, 3, 4, 5, 6, 8, 12] * 15,
    "small and large": [4] * 100 + [60] * 20,
}


def scores(sizes: list[int], spread: np.ndarray | float, seeds: range, **options: object) -> np.ndarray:
    """Raw and corrected OPIS of independent draws, [draws, 2]."""
    found = []
    for seed in seeds:
        x, y = draw(sizes, spread, np.random.default_rng(seed))
        metrics = evaluate(x, y, num_thresholds=21, seed=seed, **options).metrics
        found.append((metrics["opis"], metrics["opis_corrected"]))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [1.2, 2.0])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_same_law_gives_zero(sizes: list[int], spread: float) -> None:
    raw, corrected = scores(sizes, spread, range(200)).T
    error = corrected.std(ddof=1) / np.sqrt(len(corrected))
    assert abs(corrected.mean()) <= max(2 * error, 0.05 * raw.mean())
    assert raw.mean() > 10 * abs(corrected.mean())  # what is corrected is worth correcting


@pytest.mark.slow
@pytest.mark.parametrize("images", [12, 24, 60])
def test_known_spread_is_recovered(images: int) -> None:
    spread = np.random.default_rng(0).permutation(np.linspace(1.0, 2.5, 40))
    fixed = {"distance_range": (1.05, 1.25)}
    truth = scores([300] * 40, spread, range(3), **fixed)[:, 1].mean()
    raw, corrected = scores([images] * 40, spread, range(150), **fixed).mean(axis=0)
    assert corrected == pytest.approx(truth, rel=0.1)
    assert images > 12 or raw > 1.2 * truth


def test_same_law_shrinks_at_once() -> None:
    raw, corrected = scores(SIZES["mixed with tiny"], 1.5, range(12)).mean(axis=0)
    assert abs(corrected) < 0.2 * raw


def test_no_class_large_enough() -> None:
    x, y = draw([3] * 20, 1.2, np.random.default_rng(0))
    metrics = evaluate(x, y, bootstrap=10).metrics
    assert np.isnan(metrics["opis_corrected"])
    assert np.isnan(metrics["opis_low"])
    assert metrics["num_classes_too_small_for_correction"] == 20


def test_interval_covers_the_score() -> None:
    x, y = draw([12] * 40, np.linspace(1.0, 2.5, 40), np.random.default_rng(0))
    m = evaluate(x, y, bootstrap=500).metrics
    assert m["opis_low"] < m["opis_corrected"] < m["opis_high"]
    assert m["opis_raw_low"] < m["opis"] < m["opis_raw_high"]
    assert m["opis_floor"] == pytest.approx(m["opis"] - m["opis_corrected"])


def test_neither_the_order_of_the_rows_nor_the_seed_moves_it() -> None:
    """Shuffled 12 times, 200 classes of 4 once gave 0.00654 to 0.01143."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(200), 4)
    x = rng.normal(size=(200, 32))[y] + rng.uniform(0.4, 1.0, size=(200, 1))[y] * rng.normal(size=(800, 32))
    orders = [rng.permutation(len(y)) for _ in range(12)]
    found = {
        evaluate(x[order], y[order], seed=seed).metrics["opis_corrected"] for seed, order in enumerate(orders)
    }
    assert len(found) == 1


@pytest.mark.parametrize("images", [4, 5, 7, 8, 12])
def test_the_stated_error_is_the_spread_over_other_splits(images: int) -> None:
    """Rotated columns leave all distances and give other keys, so other splits."""
    rng = np.random.default_rng(images)
    y = np.repeat(np.arange(100), images)
    x = rng.normal(size=(100, 24))[y] + rng.uniform(0.4, 1.0, size=(100, 1))[y] * rng.normal(
        size=(len(y), 24)
    )
    runs = [evaluate(np.roll(x, shift, axis=1), y, num_thresholds=21).metrics for shift in range(24)]
    spread = np.std([run["opis_corrected"] for run in runs], ddof=1)
    stated = np.mean([run["opis_corrected_error"] for run in runs])
    if images == 4:  # all three divisions of each class: what is left is between classes, of order 1 / C
        assert stated == 0
        assert spread < 0.01 * runs[0]["opis"]
    else:
        assert 0.5 < spread / stated < 2


def test_a_class_takes_all_its_divisions_in_turn() -> None:
    classes = np.repeat(np.arange(6), [2, 3, 4, 5, 6, 9])
    keys = np.concatenate(
        [np.sort(np.random.default_rng(0).integers(-(2**62), 2**62, n)) for n in (2, 3, 4, 5, 6, 9)]
    )
    halves = balanced_halves(classes, keys, 10, 0)
    for label, size, number in zip(range(5), (2, 3, 4, 5, 6), (1, 3, 3, 10, 10), strict=True):
        part = halves[:, classes == label]
        assert ((part == 0).sum(axis=1) == (size + 1) // 2).all()
        named = part ^ part[:, :1] if size % 2 == 0 else part  # the two names of a division are one
        assert len(np.unique(named, axis=0)) == number == len(divisions(size))
    assert len(np.unique(halves[:, classes == 5], axis=0)) > 5  # at random: some twice
    assert share_not_seen(np.array([4, 5, 8, 9]), 9) == pytest.approx([0, 0.1, 1 - 9 / 35, 1])

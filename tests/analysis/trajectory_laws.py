"""Simulated training whose effect at equal accuracy is known."""

from __future__ import annotations

import numpy as np

from dmlcore.analysis.trajectories import Trajectory, opis_at_equal_accuracy, trajectory

EPOCHS = 20


def opis_of(accuracy: np.ndarray) -> np.ndarray:
    """OPIS falls by a factor of 30 while a network learns, and is a function of accuracy alone."""
    return 0.05 * np.exp(-8.0 * accuracy) + 0.001


def simulate(
    rng: np.random.Generator, *, speed: float = 1.0, top: float = 0.4, effect: float = 0.0, noise: float = 1.0
) -> Trajectory:
    """Train once.

    Args:
        speed: how much faster than the baseline it learns.
        top: the accuracy that it tends to.
        effect: relative change of OPIS at equal accuracy.
        noise: 1: of 0.5 % on accuracy and 8 % on OPIS an epoch, of 2 % on the top and 5 % on OPIS a run.
    """
    top *= 1 + 0.02 * noise * rng.standard_normal()
    accuracy = 0.01 + top * (1 - np.exp(-speed * np.arange(EPOCHS + 1) / 5))
    opis = opis_of(accuracy) * (1 + effect) * np.exp(0.05 * noise * rng.standard_normal())
    opis = opis * (1 + 0.08 * noise * rng.standard_normal(EPOCHS + 1))
    measured = accuracy * (1 + 0.005 * noise * rng.standard_normal(EPOCHS + 1))
    found = trajectory(measured.tolist(), opis.tolist())
    assert found is not None
    return found


def simulate_pairs(
    rng: np.random.Generator, seeds: int, **variant: float
) -> tuple[dict[int, float], dict[int, float]]:
    """OPIS at equal accuracy of baseline and variant, by seed."""
    pairs = [opis_at_equal_accuracy(simulate(rng), simulate(rng, **variant)) for _ in range(seeds)]
    known = {seed: pair for seed, pair in enumerate(pairs) if pair is not None}
    return {s: pair[1] for s, pair in known.items()}, {s: pair[2] for s, pair in known.items()}

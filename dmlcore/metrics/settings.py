"""The arguments of evaluate(), checked."""

import math
from dataclasses import dataclass

REPORTED_FARS = (0.1, 0.01, 0.001, 0.0001)
SMALLEST_MEMORY = 1 << 24


@dataclass(frozen=True)
class Settings:
    """See evaluate() for each field."""

    ks: tuple[int, ...] = (1, 2, 4, 8)
    far_range: tuple[float, float] = (0.01, 0.1)
    num_thresholds: int = 101
    epsilon: float = 0.1
    distance_range: tuple[float, float] | None = None
    bootstrap: int = 0
    memory_bytes: int = 2**30
    seed: int = 0

    @property
    def rates(self) -> set[float]:
        """The false-accept rates whose distances are asked for."""
        return {*REPORTED_FARS, *(() if self.distance_range else self.far_range)}

    def __post_init__(self) -> None:
        if not self.ks or any(k < 1 for k in self.ks):
            raise ValueError(f"ks must be whole numbers of at least 1, got {self.ks}")
        _check_range("far_range", self.far_range, 0.0, 1.0, "give two rates in (0, 1], the smaller first")
        if self.far_range[0] <= 0.0:
            raise ValueError(
                f"far_range must be above 0, got {self.far_range}; the smallest rate is 1 pair of all"
            )
        if self.distance_range is not None:
            _check_range(
                "distance_range", self.distance_range, 0.0, 2.0, "give two L2 distances, the smaller first"
            )
        if self.num_thresholds < 2:
            raise ValueError(f"num_thresholds must be at least 2, both ends, got {self.num_thresholds}")
        if not 0.0 < self.epsilon <= 1.0:
            raise ValueError(f"epsilon must be a share of the classes in (0, 1], got {self.epsilon}")
        if self.bootstrap < 0:
            raise ValueError(
                f"bootstrap must be 0 (no interval) or a number of resamples, got {self.bootstrap}"
            )
        if self.memory_bytes < SMALLEST_MEMORY:
            raise ValueError(
                f"memory_bytes must be at least {SMALLEST_MEMORY} (16 MiB), got {self.memory_bytes}"
            )


def _check_range(name: str, value: tuple[float, float], low: float, high: float, fix: str) -> None:
    ok = len(value) == 2 and all(math.isfinite(v) for v in value) and low <= value[0] <= value[1] <= high
    if not ok:
        raise ValueError(f"{name} must satisfy {low} <= first <= second <= {high}, got {value}; {fix}")

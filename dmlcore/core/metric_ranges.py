"""What each metric can be: a number beyond it was not measured."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import cache

RANGES = (
    (
        r"map_at_r|r_precision|recall_at_\d+|tar_at_far_.*|equal_error_rate|mean_utility(_validation_range)?"
        r"|opis(_validation_range)?|opis_raw_(low|high)|epsilon_opis",
        0.0,
        1.0,
    ),
    (r"opis_(corrected|floor|low|high)(_validation_range)?", -1.0, 1.0),
    (r"distance_(min|max)|thresholds", 0.0, 2.0),
    (r"mean|low|high", 0.0, 1.0),
    (r"num_.*|best_epoch|batch_size", 0.0, math.inf),
)
"""Names of metrics and of curves of utility, without their split -> what they can be. Others are any finite number."""
ROUNDING = 1e-6


def range_faults(*metrics: Mapping[str, float | None]) -> Iterator[str]:
    """Yield what is wrong with the values of metrics; None, where a metric is not defined, is right."""
    for name, value in (item for group in metrics for item in group.items()):
        low, high = _range(name.rsplit("/", 1)[-1])
        if value is not None and not low - ROUNDING <= value <= high + ROUNDING:
            yield f"`{name[:80]}` must be {low:g} to {high:g}, got {value!r}"


@cache
def _range(stem: str) -> tuple[float, float]:
    found = ((low, high) for pattern, low, high in RANGES if re.fullmatch(pattern, stem))
    return next(found, (-math.inf, math.inf))

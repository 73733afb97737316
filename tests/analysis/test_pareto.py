"""The fast Pareto front against the definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlcore.analysis.relations import pareto_front

# Few distinct values, so that ties and equal points come up; floats for the rest.
COORDINATE = st.one_of(st.integers(0, 3).map(float), st.floats(-1e6, 1e6))
POINTS = st.lists(st.tuples(COORDINATE, COORDINATE), max_size=30)


def naive_front(cost: list[float], gain: list[float]) -> list[bool]:
    points = list(zip(cost, gain, strict=True))
    return [not any(c <= ci and g >= gi and (c < ci or g > gi) for c, g in points) for ci, gi in points]


@given(POINTS)
def test_fast_equals_naive(points: list[tuple[float, float]]) -> None:
    cost, gain = [c for c, _ in points], [g for _, g in points]
    assert pareto_front(cost, gain).tolist() == naive_front(cost, gain)


def test_known_front() -> None:
    cost, gain = [1.0, 2.0, 2.0, 3.0, 1.0], [1.0, 3.0, 2.0, 3.0, 1.0]
    assert pareto_front(cost, gain).tolist() == [True, True, False, False, True]


def test_values_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        pareto_front([np.nan], [1.0])

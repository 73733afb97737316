"""Checks of loss parameters: what, rule, value, fix."""

from __future__ import annotations

import math


def check_number(
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    whole: bool = False,
) -> None:
    """Refuse a parameter that is not a finite number in its range.

    Args:
        name: dotted name for the message, `tcm.positive_margin`.
        value: what the caller passed.
        low: smallest allowed value (excluded with `open_low`).
        high: largest allowed value.
        open_low: the value must be above `low`, not equal to it.
        whole: the value must be an int.

    Raises:
        ValueError: naming the parameter, the rule, the value and the fix.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int if whole else (int, float))
        or not math.isfinite(value)
    ):
        raise ValueError(
            f"`{name}` must be {'an integer' if whole else 'a finite number'}, got {value!r}; "
            f"write it as a plain {'integer' if whole else 'number'}"
        )
    if value < low or value > high or (open_low and value == low):
        rule = f"{'above' if open_low else 'at least'} {low:g}" + (
            f" and at most {high:g}" if high < math.inf else ""
        )
        raise ValueError(f"`{name}` must be {rule}, got {value!r}; choose a value in that range")


def check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuse a parameter that is none of the allowed values."""
    if type(value) not in {type(item) for item in allowed} or value not in allowed:
        listed = ", ".join(repr(item) for item in allowed)
        raise ValueError(f"`{name}` must be one of {listed}, got {value!r}; choose one of them")

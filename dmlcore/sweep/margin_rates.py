"""Parameters of regularisers that are given as rates: `{share_of_negatives: 0.01}`."""

from __future__ import annotations

from typing import Any, NamedTuple

from dmlcore.config.base import ConfigError
from dmlcore.sweep.grid import Cell

POSITIVES, NEGATIVES = "share_of_positives", "share_of_negatives"
STAND_IN = {POSITIVES: 0.8, NEGATIVES: 0.4}
"""Margins with which a cell is checked before its own are known."""


class Rate(NamedTuple):
    """A parameter of a regulariser that is given as a rate."""

    place: int
    """Of the regulariser."""
    parameter: str
    kind: str
    share: float

    @property
    def path(self) -> str:
        """`PLACE.PARAMETER`, as the log of a search names it."""
        return f"{self.place}.{self.parameter}"


def rates_of(cell: Cell) -> list[Rate]:
    """Return the parameters of a cell that are given as rates.

    Raises:
        ConfigError: a parameter names more than a rate, or a share that is not between 0 and 1.
    """
    found = []
    for place, part in enumerate(cell.config.regularizers):
        for name, value in part.params.items():
            if not isinstance(value, dict) or not value.keys() & STAND_IN.keys():
                continue
            entry: tuple[str, Any] = next(iter(value.items()))
            kind, share = entry
            number = isinstance(share, int | float) and not isinstance(share, bool)
            if len(value) != 1 or not number or not 0.0 < share < 1.0:
                raise ConfigError(
                    f"sweep cell [{cell.name}]: `{part.name}.{name}` must be a number, {{{POSITIVES}: s}} or "
                    f"{{{NEGATIVES}: s}} with s in (0, 1), got {value}"
                )
            found.append(Rate(place, name, kind, float(share)))
    return found

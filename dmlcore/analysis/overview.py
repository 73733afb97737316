"""What several studies decide: a row for each variant of each study, and one over all, each comparison counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dmlcore.analysis.columns import Row
from dmlcore.analysis.comparisons import compared_pairs, comparisons
from dmlcore.analysis.effects import UNDECIDED, decide, outcomes_at_equal_accuracy
from dmlcore.analysis.study import BASELINE, Cell, Study
from dmlcore.analysis.verdict import opis_metric


@dataclass(frozen=True)
class Tally:
    """What comparisons decide, counted by outcome: `better`, `worse` or UNDECIDED."""

    study: str
    """Its name; empty: over all studies."""
    variant: str
    """Its label; empty: all variants."""
    inconsistency: Counter[str]
    accuracy: Counter[str]
    matched: Counter[str]
    """OPIS at equal accuracy, of the comparisons of which that is known."""
    changes: tuple[float, ...]
    """The decided changes of MAP@R, as a share of the baseline's."""

    @property
    def comparisons(self) -> int:
        return self.inconsistency.total()


@dataclass(frozen=True)
class _Compared:
    study: str
    row: Row
    trials: frozenset[str]
    """Keys of the finished trials of both sides: the same ones in another study are the same comparison."""


def overview(studies: Mapping[str, Study]) -> list[Tally]:
    """Count what studies decide about their variants.

    Args:
        studies: name -> the results, as they are displayed.

    Returns:
        A tally for each variant of each study, one over all studies for each variant that several have, and, last, one
        of everything. Comparisons in which no seed has finished on both sides are left out; over all studies those of
        the same trials count once.
    """
    found = [compared for name, study in studies.items() for compared in _compared(name, study)]
    groups: dict[tuple[str, str], list[Row]] = {}
    for each in found:
        groups.setdefault((each.study, each.row["variant"]), []).append(each.row)
    once = {each.trials: each.row for each in reversed(found)}  # the first of the same wins
    shared = [variant for variant, count in Counter(variant for _, variant in groups).items() if count > 1]
    return [
        *(_tally(study, variant, rows) for (study, variant), rows in groups.items()),
        *(_tally("", each, [row for row in once.values() if row["variant"] == each]) for each in shared),
        _tally("", "", list(once.values())),
    ]


def _compared(name: str, study: Study) -> list[_Compared]:
    rows = comparisons(study).to_dicts()
    return [
        _Compared(name, row, _keys(cell, variant))
        for (cell, variant), row in zip(compared_pairs(study), rows, strict=True)
        if variant != BASELINE and row["test/map_at_r/difference/mean"] is not None
    ]


def _keys(cell: Cell, variant: str) -> frozenset[str]:
    sides = (cell.finished[side] for side in (BASELINE, variant) if side in cell.finished)
    return frozenset(key for trials in sides for key in trials["trial_key"])


def _tally(study: str, variant: str, rows: Sequence[Row]) -> Tally:
    accuracy = [decide(row, "map_at_r").outcome for row in rows]
    changes = [row["test/map_at_r/difference/relative"] for row in rows]
    decided = (change for change, outcome in zip(changes, accuracy, strict=True) if outcome != UNDECIDED)
    return Tally(
        study,
        variant,
        Counter(decide(row, opis_metric(rows)).outcome for row in rows),
        Counter(accuracy),
        outcomes_at_equal_accuracy(rows),
        tuple(sorted(change for change in decided if change is not None)),
    )

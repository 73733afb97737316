"""Whether a trial had finished learning when it ended, judged by its validation MAP@R after each epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from dmlcore.analysis.metric_labels import format_percent
from dmlcore.analysis.study import BASELINE, Cell, Study
from dmlcore.records import CURVE

Curve = Sequence[float | None]
"""[E + 1], validation MAP@R from epoch 0 (untrained) to E."""

CURVE_COLUMN = f"curve/{CURVE}"
RISE = 0.05
TAIL = 0.2
CONVERGENCE_RULE = (
    f"\N{DAGGER} not converged: validation MAP@R of the last epoch more than {format_percent(RISE)} above the best of "
    f"the first {format_percent(1 - TAIL)} of the epochs (a flat end may also be that of a falling learning rate)."
)


class ConvergenceCount(NamedTuple):
    """Of the finished trials whose curve is known."""

    converged: int
    trials: int


def still_rising(curve: Curve) -> bool | None:
    """Return whether a trial was still learning at its end, so that a longer one would have scored otherwise.

    Returns:
        last > 1.05 * best of the epochs 0 .. floor(0.8 E); None where E = 0 or the last epoch has no value.
    """
    epochs = len(curve) - 1
    last = _finite(curve[-1]) if epochs >= 1 else None
    if last is None:
        return None
    # Against the best of those epochs, not the last of them: after a dip there, a recovery would pass for a rise.
    # 1e-9: 0.8 * 5 is 4, but (1 - 0.2) * 5 could be 3.9999999
    until = math.floor((1 - TAIL) * epochs + 1e-9)
    earlier = [value for entry in curve[: until + 1] if (value := _finite(entry)) is not None]
    return bool(earlier) and last > (1 + RISE) * max(earlier)


def validation_curves(finished: pl.DataFrame | None) -> list[list[float | None]]:
    """Return the curves of those finished trials that have one."""
    if finished is None or CURVE_COLUMN not in finished.columns:
        return []
    return finished[CURVE_COLUMN].drop_nulls().to_list()


def count_curves(curves: Iterable[Curve]) -> ConvergenceCount | None:
    """Count the curves that were no longer rising; None where none can be judged."""
    known = [rising for curve in curves if (rising := still_rising(curve)) is not None]
    return ConvergenceCount(known.count(False), len(known)) if known else None


def count_converged(cell: Cell, variant: str) -> int | None:
    """Count the trials of `variant` that have converged; None where no trial has a curve."""
    found = count_curves(validation_curves(cell.finished.get(variant)))
    return found and found.converged


def study_convergence(study: Study) -> ConvergenceCount | None:
    """Count the converged trials of all cells; None where no trial has a curve."""
    finished = [done for cell in study.cells for done in cell.finished.values()]
    return count_curves(curve for done in finished for curve in validation_curves(done))


def convergence_note(study: Study) -> str | None:
    """Return how many trials of the study have converged, with the rule; None where no trial has a curve."""
    found = study_convergence(study)
    return found and f"{found.converged} of {found.trials} trials have converged. {CONVERGENCE_RULE}"


def convergence_mark(row: Mapping[str, Any]) -> str:
    """Return how many seeds of a row of `comparisons` have converged; empty where all have."""
    sides = ["baseline"] if row["variant"] == BASELINE else ["baseline", "variant"]
    known = [(row[f"{side}/converged"], row[f"seeds/{side}"]) for side in sides]
    counts = [(done, seeds) for done, seeds in known if done is not None]
    done, seeds = sum(pair[0] for pair in counts), sum(pair[1] for pair in counts)
    return f"\N{DAGGER}{done} of {seeds} conv." if done < seeds else ""


def _finite(entry: float | None) -> float | None:
    return entry if entry is not None and math.isfinite(entry) else None

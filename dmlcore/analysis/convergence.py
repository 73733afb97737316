"""Whether a trial had finished learning when it ended, judged by its validation MAP@R after each epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dmlcore.analysis.metric_labels import format_percent
from dmlcore.analysis.study import BASELINE, Cell, Study
from dmlcore.records import CURVE

CURVE_COLUMN = f"curve/{CURVE}"
RISE = 0.05
TAIL = 0.2
CONVERGENCE_RULE = (
    f"\N{DAGGER} not converged: validation MAP@R of the last epoch more than {format_percent(RISE)} above the best of the "
    f"first {format_percent(1 - TAIL)} of the epochs (a flat end may also be that of a falling learning rate)."
)


def still_rising(curve: Sequence[float | None]) -> bool | None:
    """Whether a trial was still learning at its end, so that a longer one would have scored otherwise.

    The last epoch is held against the best of the epochs 0 .. floor(0.8 E), not against one epoch, so that a dip
    there does not pass for a rise.

    Args:
        curve: [E + 1], validation MAP@R from epoch 0 (untrained) to E.

    Returns:
        last > 1.05 * best; None where E = 0 or the last epoch has no value.
    """
    epochs = len(curve) - 1
    last = _value(curve[-1]) if epochs >= 1 else None
    if last is None:
        return None
    until = math.floor((1 - TAIL) * epochs + 1e-9)
    earlier = [value for entry in curve[: until + 1] if (value := _value(entry)) is not None]
    return bool(earlier) and last > (1 + RISE) * max(earlier)


def validation_curves(cell: Cell, variant: str) -> dict[int, list[float | None]]:
    """Seed -> validation MAP@R by epoch, of the finished trials of `variant` that have it."""
    done = cell.finished.get(variant)
    if done is None or CURVE_COLUMN not in done.columns:
        return {}
    found = zip(done["seed"].to_list(), done[CURVE_COLUMN].to_list(), strict=True)
    return {seed: curve for seed, curve in found if curve is not None}


def count_converged(cell: Cell, variant: str) -> int | None:
    """How many trials of `variant` were no longer rising; None where no trial has a curve."""
    known = [
        rising
        for curve in validation_curves(cell, variant).values()
        if (rising := still_rising(curve)) is not None
    ]
    return known.count(False) if known else None


def convergence_note(study: Study) -> str | None:
    """How many trials of the study have converged, with the rule; None where no trial has a curve."""
    found = [
        c
        for cell in study.cells
        for variant in cell.variants
        for c in validation_curves(cell, variant).values()
    ]
    known = [rising for curve in found if (rising := still_rising(curve)) is not None]
    if not known:
        return None
    return f"{known.count(False)} of {len(known)} trials have converged. {CONVERGENCE_RULE}"


def convergence_mark(row: Mapping[str, Any]) -> str:
    """What stands beside the seeds of a row of `comparisons`: its converged trials where not all have, else nothing."""
    sides = ["baseline"] if row["variant"] == BASELINE else ["baseline", "variant"]
    known = [(row[f"{side}/converged"], row[f"seeds/{side}"]) for side in sides]
    counts = [(done, seeds) for done, seeds in known if done is not None]
    done, seeds = sum(pair[0] for pair in counts), sum(pair[1] for pair in counts)
    return f"\N{DAGGER}{done} of {seeds} conv." if done < seeds else ""


def _value(entry: float | None) -> float | None:
    return entry if entry is not None and math.isfinite(entry) else None

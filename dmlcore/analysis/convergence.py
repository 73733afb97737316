"""Whether a trial had finished learning when it ended, judged by its validation MAP@R after each epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from dmlcore.analysis.metric_labels import format_percent
from dmlcore.analysis.study import BASELINE, Cell, Study, cached_per_study, swept_axes
from dmlcore.config.sweep import LONGER_ROLE
from dmlcore.records import CURVE

Curve = Sequence[float | None]
"""[E + 1], validation MAP@R from epoch 0 (untrained) to E."""

CURVE_COLUMN = f"curve/{CURVE}"
FLAT = 0.02
TAIL, LEAST = 0.2, 3
"""The share of the epochs at the end that is judged, and the least number of them: two alone are flat by chance."""
LONGER = 0.05
LEAST_FACTOR = 1.5
"""A run that trains fewer times as long shows nothing by ending where the other did."""
CONVERGENCE_RULE = (
    f"\N{DAGGER} not converged: validation MAP@R varies by more than {format_percent(FLAT)} over the last "
    f"{format_percent(TAIL)} of the epochs, at least {LEAST} of them."
)
UNCHECKED = (
    "A falling learning rate flattens every curve, and no longer run (`sweep.longer_run`) checks that."
)
EPOCHS_COLUMN = "config/train.epochs"
FOLLOWS_EPOCHS = (EPOCHS_COLUMN, "config/train.schedule.milestones")


class ConvergenceCount(NamedTuple):
    """Of the finished trials whose curve is known."""

    converged: int
    trials: int


class LongerRun(NamedTuple):
    """A trial of the study beside one that differs in its number of epochs alone."""

    name: str
    epochs: int
    longer_epochs: int
    score: float
    """Validation MAP@R of the study's last epoch."""
    longer_score: float
    network: tuple[str, str]
    """Data set and backbone, whose trials it speaks for."""

    @property
    def agrees(self) -> bool:
        """Whether the longer run ends at most LONGER above."""
        return self.longer_score <= (1 + LONGER) * self.score

    @property
    def sentence(self) -> str:
        change = 100 * (self.longer_score / self.score - 1) if self.score > 0 else math.inf
        outcome = "learning had ended" if self.agrees else "learning had not ended"
        return (
            f"Checked by a longer run: {self.name}, with {self.longer_epochs} epochs instead of {self.epochs} ends at "
            f"validation MAP@R {self.longer_score:.4f} instead of {self.score:.4f} ({change:+.1f} %; up to "
            f"+{format_percent(LONGER)} counts as converged): {outcome}."
        )


def longer_runs(study: Study) -> list[LongerRun]:
    """Pair each finished longer run with the study's trial of the same names, swept settings and seed."""
    if study.longer is None:
        return []
    swept = [column for column in swept_axes(study.trials) if column not in FOLLOWS_EPOCHS]
    names = ["dataset", "backbone", "loss", "variant", "seed", *swept]
    columns = [*names, EPOCHS_COLUMN, CURVE_COLUMN]
    tables = [table.filter(status="finished") for table in (study.trials, study.longer)]
    if any(not set(columns) <= set(table.columns) for table in tables):
        return []
    ends_known = [EPOCHS_COLUMN, CURVE_COLUMN]
    short, long = (table.select(columns).drop_nulls(ends_known) for table in tables)
    found = []
    for row in short.join(long, on=names, suffix="/longer", nulls_equal=True).sort(names).to_dicts():
        ends = [_finite(row[column][-1]) for column in (CURVE_COLUMN, f"{CURVE_COLUMN}/longer")]
        epochs = row[EPOCHS_COLUMN], row[f"{EPOCHS_COLUMN}/longer"]
        if ends[0] is not None and ends[1] is not None and epochs[1] > epochs[0]:
            name = f"{' '.join(row[column] for column in names[:4])}, seed {row['seed']}"
            found.append(LongerRun(name, *epochs, ends[0], ends[1], (row["dataset"], row["backbone"])))
    return found


@cached_per_study
def longer_evidence(study: Study) -> dict[tuple[str, str], bool]:
    """Return (data set, backbone) -> whether its longer runs show that flat ends are ends of learning.

    True: each ends at most LONGER above, and one trains LEAST_FACTOR times as long or longer. False: one ends higher.
    A data set and backbone without such a run is not among them.
    """
    found: dict[tuple[str, str], bool] = {}
    for run in longer_runs(study):
        if not run.agrees or run.longer_epochs >= LEAST_FACTOR * run.epochs:
            found[run.network] = found.get(run.network, True) and run.agrees
    return found


def has_converged(curve: Curve) -> bool | None:
    """Return whether validation MAP@R was flat at the end of a trial.

    Returns:
        max - min <= 0.02 * max over the epochs floor(0.8 E) .. E, at least three; None where E = 0 or one of them has
        no value.
    """
    epochs = len(curve) - 1
    # 1e-9: 0.8 * 5 is 4, but (1 - 0.2) * 5 could be 3.9999999
    start = min(math.floor((1 - TAIL) * epochs + 1e-9), epochs + 1 - LEAST)
    tail = [_finite(entry) for entry in curve[max(start, 0) :]]
    known = [value for value in tail if value is not None]
    if epochs < 1 or len(known) < len(tail):
        return None
    return max(known) - min(known) <= FLAT * max(known)


def validation_curves(finished: pl.DataFrame | None) -> list[list[float | None]]:
    """Return the curves of those finished trials that have one."""
    if finished is None or CURVE_COLUMN not in finished.columns:
        return []
    return finished[CURVE_COLUMN].drop_nulls().to_list()


def count_curves(curves: Iterable[Curve]) -> ConvergenceCount | None:
    """Count the curves that were flat at their ends; None where none can be judged."""
    known = [flat for curve in curves if (flat := has_converged(curve)) is not None]
    return ConvergenceCount(known.count(True), len(known)) if known else None


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
    checks = [run.sentence for run in longer_runs(study)] or [UNCHECKED]
    checks += _unfinished_runs(study)
    return found and " ".join(
        [f"{found.converged} of {found.trials} trials have converged.", CONVERGENCE_RULE, *checks]
    )


def _unfinished_runs(study: Study) -> list[str]:
    """Name the longer runs of the study itself that have not finished."""
    if study.longer is None or "role" not in study.longer.columns:
        return []
    lost = study.longer.filter((pl.col("role") == LONGER_ROLE) & (pl.col("status") != "finished"))
    return [
        f"The longer run of {row['dataset']} {row['backbone']} has not finished ({row['status']}): {row['error']}."
        for row in lost.sort("dataset", "backbone").to_dicts()
    ]


def convergence_mark(row: Mapping[str, Any]) -> str:
    """Return how many seeds of a row of `comparisons` have converged; empty where all have."""
    sides = ["baseline"] if row["variant"] == BASELINE else ["baseline", "variant"]
    known = [(row[f"{side}/converged"], row[f"seeds/{side}"]) for side in sides]
    counts = [(done, seeds) for done, seeds in known if done is not None]
    done, seeds = sum(pair[0] for pair in counts), sum(pair[1] for pair in counts)
    return f"\N{DAGGER}{done} of {seeds} conv." if done < seeds else ""


def _finite(entry: float | None) -> float | None:
    return entry if entry is not None and math.isfinite(entry) else None

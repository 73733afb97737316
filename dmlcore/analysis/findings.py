"""What the searches and the extra analyses of a study found, and what limits it, in sentences made from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from dmlcore.analysis.breakpoint import MIN_SEGMENT_POINTS, RankCorrelation
from dmlcore.analysis.columns import DIFFERENCE, Row
from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.convergence import convergence_note
from dmlcore.analysis.embedding import first_trials, metrics_text
from dmlcore.analysis.margins import SELECTION_RULE, chosen_table
from dmlcore.analysis.meta_analysis import forest_sentences
from dmlcore.analysis.metric_labels import (
    format_metric,
    format_percent,
    metric_label,
    one_line,
    variant_label,
)
from dmlcore.analysis.relations import Relation, relations
from dmlcore.analysis.searches import rate_sentences, search_sentences, unequal_searches
from dmlcore.analysis.statistics import paired_difference
from dmlcore.analysis.study import BASELINE, CELL_COLUMNS, Cell, Study
from dmlcore.analysis.tuned_settings import SELECTION_METRIC, chosen_study, displayed_study
from dmlcore.analysis.verdict import with_difference

FALLS, RISES, UNCLEAR = "OPIS falls as accuracy rises", "OPIS rises with accuracy", "no clear trend"
MARGIN_METRICS = ("map_at_r", "opis", "opis_corrected")
MIN_INTERVAL_SEEDS = 2
MAX_NAMED = 4
"""Configurations that a caveat names before it counts the rest."""


def analysis_sentences(study: Study) -> list[str]:
    """Return what the searches and the analyses of `aggregate.parts` found, with the numbers."""
    found = [sentence for part in study.config.parts for sentence in SENTENCES[part](study)]
    searches = search_sentences(study) + rate_sentences(study)
    return searches + alone_sentences(displayed_study(study)) + forest_sentences(study) + found


def caveats(study: Study, rows: Sequence[Row]) -> list[str]:
    """Say what limits the verdict: unfinished trials, configurations that did not learn, number of comparisons."""
    notes = [*_unfinished_trials(study), *_untrained_caveat(rows)]
    if convergence := convergence_note(study):
        notes.append(convergence)
    notes += _best_sentence(study)
    rows = [row for row in rows if row["variant"] != BASELINE]
    notes += unequal_searches(rows)
    unpaired = len(rows) - len(with_difference(rows, "opis"))
    if unpaired:
        notes.append(f"{unpaired} of {len(rows)} rows have no pair of finished seeds to compare.")
    few = sum(0 < row["seeds/paired"] < MIN_INTERVAL_SEEDS for row in rows)
    if few:
        notes.append(f"{few} of {len(rows)} rows have one pair of seeds only, so no interval.")
    if len(rows) > 1:
        notes.append(
            "Each interval is for one comparison taken alone. The p-values corrected for all "
            f"{len(rows)} comparisons of a metric (Holm) are p (Holm) in report.html and p_holm in comparisons.csv."
        )
    return notes


def _best_sentence(study: Study) -> list[str]:
    """Name the configuration with the highest mean R@1 over its seeds."""
    metric = "test/recall_at_1"
    means = {
        f"{cell.title}, {variant}": mean
        for cell in study.cells
        for variant in cell.finished
        if (mean := cell.mean(variant, metric)) is not None
    }
    if not means:
        return []
    best = max(means, key=means.__getitem__)
    return [f"The highest {metric_label(metric)} is {format_metric(means[best], metric)}: {best}."]


def alone_sentences(study: Study) -> list[str]:
    """Compare each regulariser that trained without a base loss with the baseline of every loss, paired by seed."""
    alone = [cell for cell in study.cells if cell.loss == "none"]
    based = [cell for cell in study.cells if cell.loss != "none" and cell.finished.get(BASELINE) is not None]
    return [
        sentence
        for cell in alone
        for base in based
        if (base.dataset, base.backbone) == (cell.dataset, cell.backbone)
        for variant in cell.finished
        if (sentence := _alone_sentence(cell, variant, base, study.config.confidence))
    ]


def _alone_sentence(cell: Cell, variant: str, base: Cell, confidence: float) -> str | None:
    changes, pairs = [], 0
    for name in MARGIN_METRICS:
        metric = f"test/{name}"
        found = paired_difference(base.values(BASELINE, metric), cell.values(variant, metric), confidence)
        if found.difference.mean is None:
            return None
        mean, low, high = (format_metric(v, metric, True) for v in found.difference[:3])
        changes.append(f"{metric_label(metric)} {mean} ({low} to {high})")
        pairs = len(found.values)
    return (
        f"{cell.dataset} {cell.backbone}: {variant_label(variant)} without a base loss, less {base.loss_text} alone: "
        f"{', '.join(changes)} ({format_percent(confidence)} intervals of the paired differences, {pairs} pairs)."
    )


def pareto_sentences(study: Study) -> list[str]:
    """Say what was found about "past a bend accuracy is bought with inconsistency", with the numbers."""
    return [relation_sentence(r, study.config.accuracy) for r in relations(study)]


def margins_sentences(study: Study) -> list[str]:
    """Say how many settings each family had, which was chosen, and how it compares with the chosen baseline."""
    chosen = [_chosen_sentence(row) for row in chosen_table(study).to_dicts()]
    compared = [row for row in comparisons(chosen_study(study)).to_dicts() if row["variant"] != BASELINE]
    return [SELECTION_RULE, *chosen, *(_family_sentence(row, study.config.confidence) for row in compared)]


def embedding_sentences(study: Study) -> list[str]:
    """List the numbers of the trials that the picture shows."""
    return [
        f"{row['dataset']} {row['backbone']} {cell.loss_text} {variant}, seed {row['seed']}: {metrics_text(row)}."
        for cell, variant, row in first_trials(study)
    ]


def relation_sentence(r: Relation, accuracy: str) -> str:
    """Word the front, the bend and the correlations of a relation; what the intervals leave open stays open."""
    text = f"{' '.join(r.group)}, {metric_label(r.metric)} against {metric_label(accuracy)} "
    text += f"over {len(r.points)} configurations: Spearman's rho {_rho_text(r.overall, r.confidence)}. "
    text += f"Pareto front: {len(r.front)} ({'; '.join(p.name for p in r.front)}). "
    if r.breakpoint is None or r.below is None or r.above is None:
        return text + f"Too few for a bend (it needs {MIN_SEGMENT_POINTS} on each side)."
    test = f"two segments against one line: p = {r.breakpoint.p:.3g}"
    sides = f"rho {_rho_text(r.below, r.confidence)} below it and {_rho_text(r.above, r.confidence)} above"
    at = f"{metric_label(accuracy)} {format_metric(r.breakpoint.at, accuracy)}"
    if not r.has_breakpoint:
        return text + f"No bend found ({test}); the best candidate, {at}, would have {sides}."
    below, above = _trend(r.below), _trend(r.above)
    outcome = "holds" if (below, above) == (FALLS, RISES) else "does not hold"
    if UNCLEAR in (below, above):
        outcome = "remains unclear"
    claim = f"That past a bend accuracy is bought with inconsistency {outcome} here."
    return text + f"Breakpoint at {at} ({test}): {sides}; {below} below, {above} above. {claim}"


def _trend(found: RankCorrelation) -> str:
    """Return what the interval of rho says; unclear where it includes 0 or is not known."""
    # An interval that includes 0 is no proof that there is no trend
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return UNCLEAR
    return FALLS if found.high < 0 else RISES


def _rho_text(found: RankCorrelation, confidence: float) -> str:
    if found.rho is None:
        return f"unknown ({found.points} points)"
    if found.low is None or found.high is None:
        return f"{found.rho:+.2f} ({found.points} points, too few losses for an interval)"
    interval = f"{format_percent(confidence)} interval {found.low:+.2f} to {found.high:+.2f}"
    return f"{found.rho:+.2f} ({interval}, {found.points} points)"


def _chosen_sentence(row: Mapping[str, Any]) -> str:
    tried = row["settings/tried"]
    text = f"{_family_name(row, row['family'])}: {tried} setting{'s' if tried != 1 else ''} tried"
    if row["setting"] is None:
        return f"{text}, none with all its seeds."
    values = ", ".join(f"{metric_label(m)} {format_metric(row[f'test/{m}/mean'], m)}" for m in MARGIN_METRICS)
    score = format_metric(row[f"{SELECTION_METRIC}/mean"], SELECTION_METRIC)
    return f"{text}, chosen {row['setting']} (validation MAP@R {score}); test {values}."


def _family_sentence(row: Mapping[str, Any], confidence: float) -> str:
    name = _family_name(row, row["variant"])
    if row["test/map_at_r/difference/mean"] is None:
        return f"{name}: no baseline with the same seeds to compare with."
    changes = [
        f"{metric_label(m)} {DIFFERENCE.mean_text(row, m)} ({DIFFERENCE.range_text(row, m) or '- to -'})"
        for m in MARGIN_METRICS
    ]
    return (
        f"{name}, chosen, less {row['loss']} alone, chosen: {', '.join(changes)} "
        f"({format_percent(confidence)} intervals of the paired differences, {row['seeds/paired']} pairs)."
    )


def _family_name(row: Mapping[str, Any], family: str) -> str:
    loss = row["loss"]
    name = f"{family} alone" if loss == "none" else f"{loss} + {family}"
    if family == BASELINE:
        name = f"{loss} alone"
    return f"{row['dataset']} {row['backbone']} {name}"


def _unfinished_trials(study: Study) -> list[str]:
    """Name the unfinished trials, those of one configuration and error together."""
    lost = study.trials.filter(pl.col("status") != "finished").sort(*CELL_COLUMNS, "variant", "seed")
    if lost.is_empty():
        return []
    groups: dict[tuple[str, str], list[str]] = {}
    for row in lost.iter_rows(named=True):
        trials = " ".join([row["status"], *(row[name] for name in (*CELL_COLUMNS, "variant"))])
        groups.setdefault((trials, one_line(row["error"] or "", 120)), []).append(str(row["seed"]))
    lines = [f"{lost.height} of {study.trials.height} trials are not finished and not in the means:"]
    for (trials, error), seeds in groups.items():
        reason = f": {error}" if error else ""
        lines.append(f"  {trials} seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}{reason}")
    return lines


def _untrained_caveat(rows: Sequence[Row]) -> list[str]:
    """Name the configurations that learned nothing; say so where all learned; nothing where it is not known."""
    sides = [(row, side) for row in rows for side in ("baseline", "variant")]
    failed = [(row, side) for row, side in sides if row[f"{side}/beats_untrained"] is False]
    variants = [(row, BASELINE if side == "baseline" else row["variant"]) for row, side in failed]
    texts = (f"{row['backbone']} {row['loss']} {variant} on {row['dataset']}" for row, variant in variants)
    if below := list(dict.fromkeys(texts)):
        more = len(below) - MAX_NAMED
        rest = f"; and {more} more (beats_untrained in comparisons.csv)" if more > 0 else ""
        names = "; ".join(below[:MAX_NAMED])
        return [f"Below raw pixels or the same network before training in MAP@R or R@1: {names}{rest}."]
    if any(row[f"{side}/beats_untrained"] is None for row, side in sides):
        return []
    return ["Every configuration beats raw pixels and the same network before training in MAP@R and R@1."]


SENTENCES: dict[str, Callable[[Study], list[str]]] = {
    "pareto": pareto_sentences,
    "margins": margins_sentences,
    "search": lambda study: [],  # `search_sentences` says what any search found
    "embedding": embedding_sentences,
}

"""What part `pareto` found, in sentences made from the numbers."""

from __future__ import annotations

from dmlcore.analysis.breakpoint import MIN_SEGMENT_POINTS, RankCorrelation
from dmlcore.analysis.metric_labels import format_metric, format_percent, metric_label
from dmlcore.analysis.relations import Relation, relations
from dmlcore.analysis.study import Study

FALLS, RISES, UNCLEAR = "OPIS falls as accuracy rises", "OPIS rises with accuracy", "no clear trend"


def pareto_sentences(study: Study) -> list[str]:
    """What was found about "past a bend accuracy is bought with inconsistency", with the numbers."""
    return [relation_sentence(r, study.config.accuracy) for r in relations(study)]


def relation_sentence(r: Relation, accuracy: str) -> str:
    """The front, the bend and the correlations of a relation in words; what the intervals leave open stays open."""
    who = f"{' '.join(r.group)}, {metric_label(r.metric)} against {metric_label(accuracy)} over {len(r.points)} configurations"
    text = f"{who}: Spearman's rho {_rho(r.overall, r.confidence)}. "
    text += f"Pareto front: {len(r.front)} ({'; '.join(p.name for p in r.front)}). "
    if r.breakpoint is None or r.below is None or r.above is None:
        return text + f"Too few for a bend (it needs {MIN_SEGMENT_POINTS} on each side)."
    test = f"two segments against one line: p = {r.breakpoint.p:.3g}"
    sides = f"rho {_rho(r.below, r.confidence)} below it and {_rho(r.above, r.confidence)} above"
    at = f"{metric_label(accuracy)} {format_metric(r.breakpoint.at, accuracy)}"
    if not r.has_breakpoint:
        return text + f"No bend found ({test}); the best candidate, {at}, would have {sides}."
    claim = f"That past a bend accuracy is bought with inconsistency {_outcome(r.below, r.above)} here."
    return (
        text
        + f"Breakpoint at {at} ({test}): {sides}; {_trend(r.below)} below, {_trend(r.above)} above. {claim}"
    )


def _outcome(below: RankCorrelation, above: RankCorrelation) -> str:
    trends = _trend(below), _trend(above)
    if trends == (FALLS, RISES):
        return "holds"
    return "remains unclear" if UNCLEAR in trends else "does not hold"


def _trend(found: RankCorrelation) -> str:
    """What the interval of rho says; unclear where it holds 0 or is not known."""
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return UNCLEAR
    return FALLS if found.high < 0 else RISES


def _rho(found: RankCorrelation, confidence: float) -> str:
    if found.rho is None:
        return f"unknown ({found.points} points)"
    if found.low is None or found.high is None:
        return f"{found.rho:+.2f} ({found.points} points, too few losses for an interval)"
    interval = f"{format_percent(confidence)} interval {found.low:+.2f} to {found.high:+.2f}"
    return f"{found.rho:+.2f} ({interval}, {found.points} points)"

"""Sampling with Optuna: the next setting of a search, and the best ones.

The Optuna study is built anew for each question, from the log and the records alone. A search that resumes after a kill
runs through the same code, and so through the same settings, as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from dmlcore.config.search import OBJECTIVES, ParameterConfig, SearchConfig
from dmlcore.core.hashing import json_sha256
from dmlcore.records import TrialRecord
from dmlcore.sweep.search.log import Suggestion

optuna.logging.set_verbosity(optuna.logging.WARNING)

DIGITS = 4
"""Significant digits of a suggested value, so that a person can copy it into a params.yaml."""
SAMPLERS: dict[str, Callable[[SearchConfig, int], BaseSampler]] = {
    "tpe": lambda search, seed: TPESampler(n_startup_trials=search.startup, seed=seed),
    "nsga2": lambda search, seed: NSGAIISampler(population_size=search.startup, seed=seed),
    "random": lambda search, seed: RandomSampler(seed=seed),
}
"""Name in `sweep.search.sampler` -> sampler of a search with a seed."""

Space = Mapping[str, ParameterConfig]
"""Dotted config path -> where to look."""
Records = Mapping[str, TrialRecord]
"""Trial key -> record."""


def next_setting(
    space: Space, search: SearchConfig, suggestions: Sequence[Suggestion], records: Records
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sample the next setting to try.

    Args:
        space: where to look.
        search: objectives, sampler and its seed.
        suggestions: all so far, by number.
        records: of the trials that have ended; a suggestion whose trial has none is still running.

    Returns:
        Dotted path -> value, and the sampler's attributes to keep with it.
    """
    study = _study(space, search, suggestions, records)
    trial = study.ask({path: _distribution(parameter) for path, parameter in space.items()})
    attributes = study.get_trials(deepcopy=False)[-1].system_attrs
    return {path: _rounded(value, space[path]) for path, value in trial.params.items()}, dict(attributes)


def pareto_front(
    space: Space, search: SearchConfig, suggestions: Sequence[Suggestion], records: Records
) -> list[Suggestion]:
    """Return the finished suggestions that none beats in every objective, the best in the objective that chooses first.

    Of several with equal values the earliest is returned alone. Where a rule chooses, the first objective sorts.
    """
    best = {trial.number: trial for trial in _study(space, search, suggestions, records).best_trials}
    sorts = search.choose if search.choose in search.objectives else search.objectives[0]
    by = search.objectives.index(sorts)
    sign = 1 if OBJECTIVES[search.objectives[by]] == "minimize" else -1
    order = sorted(best, key=lambda number: (sign * best[number].values[by], number))
    earliest = {tuple(best[number].values): number for number in reversed(order)}
    return [suggestions[number] for number in order if number in earliest.values()]


class Choice(NamedTuple):
    """The Pareto front of a search, the chosen setting first, and by what it was chosen."""

    front: list[Suggestion]
    rule: str


def choose(front: list[Suggestion], search: SearchConfig, records: Records, best: float | None) -> Choice:
    """Choose one setting of a Pareto front.

    Args:
        front: from `pareto_front`.
        search: with the rule, `choose`.
        records: of the front.
        best: the baseline's best accuracy, which `no_accuracy_loss` keeps; None: there is no baseline, so the front's.
    """
    place, rule = 0, f"best {search.choose or search.objectives[0]}"
    if front and search.choose not in (None, *search.objectives):
        up = next(metric for metric in search.objectives if OBJECTIVES[metric] == "maximize")
        down = next(metric for metric in search.objectives if OBJECTIVES[metric] == "minimize")
        values = [records[s.trial_key or ""].metrics for s in front]
        points = [(-float(v[up] or 0.0), float(v[down] or 0.0)) for v in values]
        if search.choose == "knee":
            place, rule = _at_knee(points, search)
        else:
            place, rule = _without_loss(points, up, down, search.accuracy_loss, best)
    return Choice([*front[place : place + 1], *front[:place], *front[place + 1 :]], rule)


def _at_knee(points: Sequence[tuple[float, float]], search: SearchConfig) -> tuple[int, str]:
    place = knee(points)
    if place is None:
        return 0, f"no knee on a front of {len(points)}, so best {search.objectives[0]}"
    return place, f"knee of a front of {len(points)}"


def _without_loss(
    points: Sequence[tuple[float, float]], up: str, down: str, loss: float, best: float | None
) -> tuple[int, str]:
    whose = "own best, without a baseline" if best is None else "the baseline's best"
    bar = (1.0 - loss) * (max(-x for x, _ in points) if best is None else best)
    allowed = f" less {100 * loss:g} %" if loss else ""
    text = f"{up} of at least {bar:.4f} ({whose}{allowed})"
    kept = [place for place, (x, _) in enumerate(points) if -x >= bar]
    if kept:
        return min(kept, key=lambda place: points[place][1]), f"smallest {down} at {text}"
    return min(range(len(points)), key=lambda place: points[place]), f"no setting has {text}, so best {up}"


def knee(points: Sequence[tuple[float, float]]) -> int | None:
    """Return the place of the knee of a Pareto front: the point farthest from the line between its ends.

    Both axes are scaled so that the front reaches from 0 to 1 in each; the ends are then (0, 1) and (1, 0), and the
    distance of a point towards the ideal corner is (1 - x - y) / sqrt(2).

    Args:
        points: [n, 2], both to be minimised; none beats another.

    Returns:
        The first of equals; None where no point lies on the ideal corner's side of the line.

    Reference: Das, On characterizing the "knee" of the Pareto curve, 1999; Branke et al., Finding knees in
    multi-objective optimization, PPSN 2004.
    """
    if len(points) < 3:
        return None
    lows, highs = (
        [min(axis) for axis in zip(*points, strict=True)],
        [max(axis) for axis in zip(*points, strict=True)],
    )
    if lows[0] == highs[0] or lows[1] == highs[1]:
        return None
    bulge = [
        1.0 - sum((v - low) / (high - low) for v, low, high in zip(p, lows, highs, strict=True))
        for p in points
    ]
    place = max(range(len(points)), key=lambda i: bulge[i])
    return place if bulge[place] > 1e-9 else None


def _study(
    space: Space, search: SearchConfig, suggestions: Sequence[Suggestion], records: Records
) -> optuna.study.Study:
    # Seeded by (seed, number) alone: the searches of a study try the same settings as far as they share a space, and a
    # sampler that is built anew continues as the one before it would have.
    seed = int(json_sha256([search.seed, "ask", len(suggestions)])[:8], 16)
    study = optuna.create_study(
        directions=[OBJECTIVES[metric] for metric in search.objectives],
        sampler=SAMPLERS[search.sampler](search, seed),
    )
    for suggestion in suggestions:
        record = records.get(suggestion.trial_key or "")
        study.add_trial(_optuna_trial(suggestion, space, search, record))
    return study


def _optuna_trial(
    suggestion: Suggestion, space: Space, search: SearchConfig, record: TrialRecord | None
) -> FrozenTrial:
    """Convert a suggestion: running, complete with its values, pruned with its curve, or failed."""
    # Failed is also a trial that reported no value for an objective, and a setting that cannot be built: Optuna leaves
    # both out of its model.
    outcome: dict[str, Any] = {"state": TrialState.FAIL}
    if suggestion.refused is None and record is None:
        outcome = {"state": TrialState.RUNNING}
    elif record is not None and record.status == "stopped":
        outcome = {"state": TrialState.PRUNED, "intermediate_values": _curve(record, search)}
    elif record is not None and record.status == "finished":
        values = [record.metrics.get(metric) for metric in search.objectives]
        if None not in values:
            outcome = {"state": TrialState.COMPLETE, "values": values}
    return create_trial(
        params=dict(suggestion.params),
        distributions={path: _distribution(parameter) for path, parameter in space.items()},
        system_attrs=suggestion.attributes,
        **outcome,
    )


def _curve(record: TrialRecord, search: SearchConfig) -> dict[int, float]:
    """Return epoch -> objective; empty for two objectives, of which Optuna takes no intermediate values."""
    if len(search.objectives) > 1:
        return {}
    values = [epoch.get(search.objectives[0]) for epoch in record.curve]
    return {epoch: value for epoch, value in enumerate(values) if value is not None}


def _distribution(parameter: ParameterConfig) -> BaseDistribution:
    low, high = parameter.low, parameter.high
    if parameter.values or low is None or high is None:
        return CategoricalDistribution(parameter.values)
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=parameter.log)
    return FloatDistribution(low, high, log=parameter.log)


def _rounded(value: Any, parameter: ParameterConfig) -> Any:
    low, high = parameter.low, parameter.high
    if parameter.values or low is None or high is None or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), float(low)), float(high))  # rounding may leave the range

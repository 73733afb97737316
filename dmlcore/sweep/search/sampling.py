"""Optuna: the next setting of a search, and the best ones, from what was asked and recorded so far.

The Optuna study is built anew for each question, from the log and the records alone: a search that goes on after a kill
runs through the same code, and so through the same settings, as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from dmlcore.config.sweep import OBJECTIVES, ParameterConfig, SearchConfig
from dmlcore.core.hashing import json_sha256
from dmlcore.records import TrialRecord
from dmlcore.sweep.search.log import Ask
from dmlcore.sweep.search.space import Space

optuna.logging.set_verbosity(optuna.logging.WARNING)


DIGITS = 4
"""Significant digits of a value that is asked for: what a person can copy into a params.yaml."""


Records = Mapping[str, TrialRecord]


def next_setting(
    space: Space, search: SearchConfig, asks: Sequence[Ask], records: Records
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to try next.

    Args:
        space: dotted path -> where to look.
        search: objectives, sampler and its seed.
        asks: all so far, by number.
        records: trial key -> record; an ask whose trial has none is still running.

    Returns:
        Dotted path -> value, and what the sampler noted.
    """
    study = _study(space, search, asks, records)
    trial = study.ask({path: _distribution(parameter) for path, parameter in space.items()})
    noted = study.get_trials(deepcopy=False)[-1].system_attrs
    return {path: _rounded(value, space[path]) for path, value in trial.params.items()}, dict(noted)


def front(space: Space, search: SearchConfig, asks: Sequence[Ask], records: Records) -> list[Ask]:
    """The finished asks that none beats in every objective, the one to choose first; of equals the earliest alone."""
    best = {trial.number: trial for trial in _study(space, search, asks, records).best_trials}
    chooses = search.objectives.index(search.choose or search.objectives[0])
    sign = 1 if OBJECTIVES[search.objectives[chooses]] == "minimize" else -1
    order = sorted(best, key=lambda number: (sign * best[number].values[chooses], number))
    earliest = {tuple(best[number].values): number for number in reversed(order)}
    return [asks[number] for number in order if number in earliest.values()]


def _study(space: Space, search: SearchConfig, asks: Sequence[Ask], records: Records) -> optuna.study.Study:
    study = optuna.create_study(
        directions=[OBJECTIVES[metric] for metric in search.objectives],
        sampler=_sampler(search, number=len(asks)),
    )
    for ask in asks:
        study.add_trial(_told(ask, space, search, records.get(ask.trial_key or "")))
    return study


def _sampler(search: SearchConfig, number: int) -> BaseSampler:
    """Drawn from (seed, number) alone: searches of one study try the same settings where they have the same space."""
    seed = int(json_sha256([search.seed, "ask", number])[:8], 16)
    if search.sampler == "random":
        return RandomSampler(seed=seed)
    if search.sampler == "nsga2":
        return NSGAIISampler(population_size=search.startup, seed=seed)
    return TPESampler(n_startup_trials=search.startup, seed=seed)


def _told(ask: Ask, space: Space, search: SearchConfig, record: TrialRecord | None) -> FrozenTrial:
    """An ask as Optuna's trial: running, complete with its values, pruned with its curve, or failed."""
    outcome: dict[str, Any] = {"state": TrialState.FAIL}
    if ask.refused is None and record is None:
        outcome = {"state": TrialState.RUNNING}
    elif record is not None and record.status == "stopped":
        outcome = {"state": TrialState.PRUNED, "intermediate_values": _curve(record, search)}
    elif record is not None and record.status == "finished":
        values = [record.metrics.get(metric) for metric in search.objectives]
        if None not in values:
            outcome = {"state": TrialState.COMPLETE, "values": values}
    return create_trial(
        params=dict(ask.params),
        distributions={path: _distribution(parameter) for path, parameter in space.items()},
        system_attrs=ask.attributes,
        **outcome,
    )


def _curve(record: TrialRecord, search: SearchConfig) -> dict[int, float]:
    """Epoch -> the one objective; Optuna has no use for a curve where there are two."""
    if len(search.objectives) > 1:
        return {}
    values = [epoch.get(search.objectives[0]) for epoch in record.curve]
    return {epoch: value for epoch, value in enumerate(values) if value is not None}


def _distribution(parameter: ParameterConfig) -> BaseDistribution:
    if parameter.values or parameter.low is None or parameter.high is None:
        return CategoricalDistribution(parameter.values)
    if isinstance(parameter.low, int) and isinstance(parameter.high, int):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _rounded(value: Any, parameter: ParameterConfig) -> Any:
    if parameter.values or parameter.low is None or parameter.high is None or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), float(parameter.low)), float(parameter.high))

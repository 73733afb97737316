"""The search of a sweep: its space, objectives and rule of choice, and when weak trials are stopped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from dmlcore.config.base import PositiveInt, Strict


class ParameterConfig(Strict):
    """The search space of one setting: a range, or a list of values."""

    low: int | float | None = None
    """Smallest value; if `low` and `high` have no decimal point, only whole numbers are drawn."""
    high: int | float | None = None
    log: bool = False
    """Uniform in the logarithm, as suits a learning rate."""
    values: tuple[bool | int | float | str, ...] = ()

    @model_validator(mode="after")
    def _range_or_values(self) -> ParameterConfig:
        if (self.low is None, self.high is None) != (bool(self.values),) * 2:
            raise ValueError("give `low` and `high`, or `values`")
        if self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError(f"`low` must be below `high`, got {self.low} and {self.high}")
            if self.log and self.low <= 0:
                raise ValueError(f"`low` must be above 0 if `log` is true, got {self.low}")
        elif self.log:
            raise ValueError("`log` applies to a range, not to `values`; remove it")
        kinds = {float if type(value) is int else type(value) for value in self.values}
        if len(kinds) > 1:
            raise ValueError(f"`values` must be all numbers, all texts or all true/false, got {self.values}")
        return self


OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {
    "validation/map_at_r": "maximize",
    "validation/r_precision": "maximize",
    "validation/mean_utility": "maximize",
    "validation/opis": "minimize",
    "validation/opis_corrected": "minimize",
    "validation/epsilon_opis": "minimize",
    "validation/equal_error_rate": "minimize",
}
"""The metrics that a search can optimise, and the better direction."""


def _objective(metric: str) -> str:
    if not metric.startswith("validation/"):
        raise ValueError(f"must start with `validation/`, got {metric!r}: nothing is chosen on test classes")
    if metric not in OBJECTIVES:
        raise ValueError(f"must be one of {sorted(OBJECTIVES)}, got {metric!r}")
    return metric


CHOICE_RULES = ("no_accuracy_loss", "knee")
"""What else than an objective may choose: see `SearchConfig.choose`."""
NOT_SEARCHED = ("dataset", "seed", "evaluation", "threads", "processes")
Objective = Annotated[str, AfterValidator(_objective)]


class SearchConfig(Strict):
    """A search in place of a grid: validation chooses the best setting of each data set x backbone x loss x
    variant at the first seed; it is then run at all seeds."""

    space: Annotated[dict[str, ParameterConfig], Field(min_length=1)]
    """Dotted config path -> its search space. A regulariser is named by its index or name,
    `regularizers.tcm.params.positive_margin`: searched in the variants that have it. A loss by its name,
    `loss.multi_similarity.params.base`: searched where it is the loss, in the baseline too."""
    trials: PositiveInt
    """Settings to try in each data set x backbone x loss x variant, the baseline as any other. A larger number
    resumes the search."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, max_length=2)] = ("validation/map_at_r",)
    """One or two of OBJECTIVES. With two, `choose` takes one setting of the Pareto front."""
    choose: str | None = None
    """An objective: the best in it; None: the first objective. With two objectives also `no_accuracy_loss`: the
    best in the one to minimise, of the settings that keep the best value in the one to maximise that the baseline
    reached, less `accuracy_loss`; or `knee`: the setting farthest from the line between the ends of the front."""
    accuracy_loss: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The share of the baseline's best accuracy that `no_accuracy_loss` may give up."""
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    """Optuna's: tree-structured Parzen estimator, genetic algorithm, or independent draws."""
    startup: Annotated[int, Field(ge=2)] = 10
    """Settings drawn at random before `tpe` learns from them; the population of `nsga2`."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> SearchConfig:
        fixed = sorted(path for path in self.space if path.split(".")[0] in NOT_SEARCHED)
        if fixed:
            raise ValueError(
                f"`space` must not search {NOT_SEARCHED}, which would change what is compared, got {fixed}"
            )
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"`objectives` must be two different metrics, got {self.objectives}")
        if self.choose is not None and self.choose not in (*self.objectives, *CHOICE_RULES):
            raise ValueError(
                f"`choose` must be one of the objectives {self.objectives} or of {CHOICE_RULES}, got {self.choose!r}"
            )
        ways = sorted(OBJECTIVES[metric] for metric in self.objectives)
        if self.choose in CHOICE_RULES and ways != ["maximize", "minimize"]:
            raise ValueError(
                f"`choose` {self.choose} needs two objectives, one to maximise and one to minimise such as "
                f"validation/map_at_r and validation/opis_corrected, got {self.objectives}"
            )
        if self.accuracy_loss and self.choose != "no_accuracy_loss":
            raise ValueError(
                f"`accuracy_loss` is of `choose: no_accuracy_loss`, got {self.choose!r}; remove it"
            )
        return self


class StopEarlyConfig(Strict):
    """Asynchronous successive halving (ASHA): at epochs grace x factor^0, x factor^1, ... (the rungs) a trial
    continues only if its validation MAP@R is among the best 1/factor of its comparison group so far."""

    scheduler: Literal["asha"] = "asha"
    """One of `dmlcore.sweep.search.early_stopping.SCHEDULERS`."""
    grace_epochs: PositiveInt = 1
    """The first rung."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3

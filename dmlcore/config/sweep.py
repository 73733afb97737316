"""The section `sweep` of a study: which trials, on which machines, searched or as a grid."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from dmlcore.config.base import Name, NonNegative, PositiveFloat, PositiveInt, Strict
from dmlcore.config.trial import ComponentConfig

# ---------------------------------------------------------------------------------------------- a study


class ResourcesConfig(Strict):
    gpus: NonNegative = 0.0
    """GPUs of a trial, or a share of one. Its CPUs are `trial.threads`."""
    memory_bytes: PositiveInt | None = None
    """Memory of a trial's process: reserved for it, and a trial that takes more is ended and fails. None: no limit."""
    time_limit_seconds: PositiveFloat | None = None
    """A trial that runs longer is ended and fails; run again, it goes on from its checkpoint. None: no limit."""
    reuse_workers: bool = True
    """Whether a worker process runs one trial after another; a new one each costs some seconds a trial."""
    max_concurrent: PositiveInt | None = None
    """None: as many as the machine's (or cluster's) CPUs and GPUs carry."""


class Override(Strict):
    where: dict[Literal["dataset", "backbone", "loss"], Name]
    """Labels of the cells that it is for; those that it does not name are free."""
    set: dict[str, Any]
    """A partial TrialConfig."""


class GridConfig(Strict):
    """One grid of a sweep of several: what it leaves out is taken from the sweep."""

    datasets: tuple[Name, ...] | None = None
    backbones: tuple[Name, ...] | None = None
    """Labels among the sweep's backbones."""
    losses: tuple[Name, ...] | None = None
    """Labels among the sweep's losses."""
    regularizers: tuple[tuple[ComponentConfig, ...], ...] | None = None
    axes: dict[str, tuple[Any, ...]] | None = None
    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = None


class ClusterConfig(Strict):
    address: str | None = None
    """`HOST:PORT` of a Ray cluster's head, or `auto` on one of its nodes; RAY_ADDRESS goes before it. None: Ray is
    started on this machine."""
    storage: str | None = None
    """fsspec address (`s3://`, `gs://`, `file:///mounted/folder`) by which nodes and driver pass data, checkpoints and
    records. None: every node has this checkout, on a shared folder, under the same path."""


class ParameterConfig(Strict):
    """Where a search may look for one setting: in a range, or among values."""

    low: int | float | None = None
    """Smallest value; `low` and `high` without a decimal point: whole numbers alone."""
    high: int | float | None = None
    log: bool = False
    """Even over the magnitudes, as suits a learning rate."""
    values: tuple[bool | int | float | str, ...] = ()

    @model_validator(mode="after")
    def _range_or_values(self) -> ParameterConfig:
        if (self.low is None, self.high is None) != (bool(self.values),) * 2:
            raise ValueError("give `low` and `high`, or `values`")
        if self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError(f"`low` must be below `high`, got {self.low} and {self.high}")
            if self.log and self.low <= 0:
                raise ValueError(f"`low` must be above 0 where `log` is true, got {self.low}")
        elif self.log:
            raise ValueError("`log` belongs to a range, not to `values`")
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
"""What a search can look for, and which way is better."""


def _objective(metric: str) -> str:
    if not metric.startswith("validation/"):
        raise ValueError(f"must start with `validation/`: nothing is chosen on test classes, got {metric!r}")
    if metric not in OBJECTIVES:
        raise ValueError(f"must be one of {sorted(OBJECTIVES)}, got {metric!r}")
    return metric


NOT_SEARCHED = ("dataset", "seed", "evaluation", "threads")
Objective = Annotated[str, AfterValidator(_objective)]


class SearchConfig(Strict):
    """A search in place of a grid: each data set x backbone x loss x variant looks for its best setting by validation, at
    the first of its seeds; the setting chosen is then run at all of them."""

    space: Annotated[dict[str, ParameterConfig], Field(min_length=1)]
    """Dotted config path -> where to look. A regulariser is named by its place or name,
    `regularizers.tcm.params.positive_margin`: searched in the variants that have it."""
    trials: PositiveInt
    """Settings to try in each data set x backbone x loss x variant. Raised, the search goes on where it was."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, max_length=2)] = ("validation/map_at_r",)
    """One or two of OBJECTIVES. With two, the setting chosen is the best by `choose` among those that none beats in
    both."""
    choose: str | None = None
    """The objective that chooses; None: the first."""
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
                f"`space` must leave {NOT_SEARCHED} alone: they would change what is compared, got {fixed}"
            )
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"`objectives` must be two different metrics, got {self.objectives}")
        if self.choose is not None and self.choose not in self.objectives:
            raise ValueError(f"`choose` must be one of the objectives {self.objectives}, got {self.choose!r}")
        return self


class StopEarlyConfig(Strict):
    """Asynchronous successive halving (ASHA): at epochs grace x factor^0, x factor^1, ... (the rungs) a trial goes on
    only if its validation MAP@R is among the best 1/factor of its rivals that came so far."""

    grace_epochs: PositiveInt = 1
    """The first rung."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class SweepConfig(Strict):
    study: Name
    trial: dict[str, Any] = {}
    """What all trials share: a partial TrialConfig."""
    datasets: tuple[Name, ...]
    backbones: dict[Name, dict[str, Any]]
    """Label -> partial TrialConfig laid over `trial` (its model, learning rate, ...)."""
    losses: dict[Name, dict[str, Any]]
    """Label -> partial TrialConfig with a `loss` section."""
    regularizers: tuple[tuple[ComponentConfig, ...], ...] = ((),)
    """The variants; the empty list is variant `baseline`, against which the others are compared."""
    axes: dict[str, tuple[Any, ...]] = {}
    """Any other dotted config path -> its values, e.g. `train.batch_size: [64, 128]`."""
    overrides: tuple[Override, ...] = ()
    """Settings of some of the cells, laid over `trial`, backbone and loss in this order, below `axes`."""
    grids: tuple[GridConfig, ...] = ()
    """Several grids in place of one: the sweep is their union, a cell that stands in two is run once."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    search: SearchConfig | None = None
    """None: the whole grid is run."""
    stop_early: StopEarlyConfig | None = None
    """Ends weak trials before their last epoch: those of a search among its data set x backbone x loss x variant; those of
    a grid among the same data set, backbone, loss, regularisers (whatever their parameters) and seed. None: never."""
    storage: str = "state/storage"
    """Where checkpoints and embeddings go, relative to the study's folder."""
    disk_budget_bytes: PositiveInt | None = None
    """Largest size of the storage folder: trials that would go beyond it are not started and fail. None: no limit."""
    resources: ResourcesConfig = ResourcesConfig()
    cluster: ClusterConfig = ClusterConfig()
    tracker: Literal["mlflow", "none"] = "mlflow"
    """Where trials are shown as they run; the records and the report need no tracker."""
    attempts: PositiveInt = 2
    """How often a trial is tried in one run of the stage before it is recorded as failed."""

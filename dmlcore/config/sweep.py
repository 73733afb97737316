"""The section `sweep` of a study: which trials, on which machines, searched or as a grid."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from dmlcore.config.base import Name, NonNegative, PositiveFloat, PositiveInt, Strict
from dmlcore.config.search import SearchConfig, StopEarlyConfig
from dmlcore.config.trial import ComponentConfig

TRACKERS = {
    "mlflow": "dmlcore.tracking.mlflow:MlflowTracker",
    "none": "dmlcore.tracking.base:Tracker",
}
"""Module and class of each tracker by its name. Text, so that settings are checked without importing any."""


def _known_tracker(name: str) -> str:
    if name not in TRACKERS:
        raise ValueError(f"must be one of {', '.join(TRACKERS)}")
    return name


T = TypeVar("T")
Key = TypeVar("Key")
Some = Annotated[tuple[T, ...], Field(min_length=1)]
"""At least one: the grid is a product, and one empty list would leave nothing of it."""
Labelled = Annotated[dict[Key, T], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0)]


class ResourcesConfig(Strict):
    gpus: NonNegative = 0.0
    """GPUs per trial: a whole number, of which each gets a process of the trial, or a fraction of one. Each process has
    `trial.threads` CPUs."""
    processes: PositiveInt | None = None
    """Processes of a trial that share each batch, on one node. None: one, or one a GPU."""
    process_timeout_seconds: PositiveFloat = 1800.0
    """Longest time that a process of a trial waits for another: then one hangs, and the trial is tried again."""
    memory_bytes: PositiveInt | None = None
    """Memory reserved for a trial; a trial that uses more is killed and fails. None: no limit."""
    time_limit_seconds: PositiveFloat | None = None
    """A trial that runs longer is killed and fails; the next run resumes it from its checkpoint. None: no limit."""
    reuse_workers: bool = True
    """Run one trial after another in a worker process; a new process costs some seconds per trial."""
    max_concurrent: PositiveInt | None = None
    """Trials at a time; None: as many as the CPUs and GPUs of the machine or cluster allow."""

    @property
    def processes_per_trial(self) -> int:
        """Return into how many processes a trial is divided."""
        return self.processes or max(1, int(self.gpus))

    @model_validator(mode="after")
    def _a_gpu_each(self) -> ResourcesConfig:
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"`gpus` must be a whole number or a fraction of one, got {self.gpus:g}")
        if self.gpus and self.processes not in (None, max(1, int(self.gpus))):
            raise ValueError(
                f"with `gpus` {self.gpus:g} a trial has a process for each GPU, got `processes` {self.processes}: "
                "remove one of the two"
            )
        return self


class Override(Strict):
    where: dict[Literal["dataset", "backbone", "loss"], Name]
    """Labels of the cells that it applies to; a label that is not named may be anything."""
    set: dict[str, Any]
    """A partial TrialConfig."""


class GridConfig(Strict):
    """One of several grids; what it leaves out is taken from the sweep."""

    datasets: Some[Name] | None = None
    backbones: Some[Name] | None = None
    """Labels among the sweep's backbones."""
    losses: Some[Name] | None = None
    """Labels among the sweep's losses."""
    regularizers: Some[tuple[ComponentConfig, ...]] | None = None
    axes: dict[str, Some[Any]] | None = None
    seeds: Some[Seed] | None = None


class ClusterConfig(Strict):
    address: str | None = None
    """`HOST:PORT` of a Ray cluster's head, or `auto` on one of its nodes; RAY_ADDRESS takes precedence. None: Ray is
    started on this machine."""
    storage: str | None = None
    """fsspec address (`s3://`, `gs://`, `file:///mounted/folder`) through which nodes and driver exchange data,
    checkpoints and records. None: all nodes share this checkout under the same path."""


LONGER_ROLE = "longer"
"""Label `role` of the trials that `longer_run` adds."""


class LongerRunConfig(Strict):
    """One more trial for each data set x backbone: the first baseline of the grid, or of a search the chosen one,
    trained longer on a schedule stretched as much. It shows whether curves are flat because learning has ended or
    because the learning rate has fallen; without it nothing is decided. It is in no comparison."""

    factor: Annotated[float, Field(ge=1.5)] = 3.0
    """How many times as many epochs."""


class SweepConfig(Strict):
    study: Name
    trial: dict[str, Any] = {}
    """A partial TrialConfig that all trials share."""
    datasets: Some[Name]
    backbones: Labelled[Name, dict[str, Any]]
    """Label -> partial TrialConfig merged into `trial` (its model, learning rate, ...)."""
    losses: Labelled[Name, dict[str, Any]]
    """Label -> partial TrialConfig with a `loss` section."""
    regularizers: Some[tuple[ComponentConfig, ...]] = ((),)
    """The variants; the empty list is the variant `baseline`, with which the others are compared. A parameter of a
    regulariser may be a rate, `{share_of_positives: 0.5}` or `{share_of_negatives: 0.01}`: the similarity that this
    share of the baseline's positive pairs lies below, or this share of its negative pairs reaches, on validation."""
    axes: dict[str, Some[Any]] = {}
    """Any other dotted config path -> its values, e.g. `train.batch_size: [64, 128]`."""
    overrides: tuple[Override, ...] = ()
    """Settings of some cells, merged after `trial`, backbone and loss, and before `axes`."""
    grids: tuple[GridConfig, ...] = ()
    """Several grids in place of one: the sweep is their union, a cell that is in two is run once."""
    seeds: Some[Seed] = (0,)
    priority: tuple[
        Annotated[dict[Literal["dataset", "backbone", "loss"], Name], Field(min_length=1)], ...
    ] = ()
    """Labels of cells, as `where` of an override: those that match the first entry run first, then those of the
    second, ..., and last the others, each in the order of the grid. Of a search: the searches."""
    search: SearchConfig | None = None
    """None: the full grid is run."""
    stop_early: StopEarlyConfig | None = None
    """Stop weak trials before their last epoch. In a search, the trials of one data set x backbone x loss x
    variant are compared; in a grid, those of one data set, backbone, loss, regularisers (with any parameters)
    and seed. None: never."""
    longer_run: LongerRunConfig | None = None
    """None: none is added; `aggregate.longer_run` may name another study's."""
    storage: str = "state/storage"
    """Folder of checkpoints and embeddings, relative to the study's folder."""
    records: Annotated[str, Field(min_length=1)] | None = None
    """Where a team shares the records of finished trials: a folder, or an fsspec address (`s3://bucket/records`). A
    trial that has its record there is not run; one that has run leaves it there. None: nowhere."""
    records_files: bool = False
    """Share the files of those trials there too: checkpoints and embeddings, verified by their sha256 on arrival."""
    disk_budget_bytes: PositiveInt | None = None
    """Largest size of the storage folder: a trial that would exceed it is not started and fails. None: no limit."""
    budget_hours: PositiveFloat | None = None
    """Hours of trials, added up over all runs of the study and the trials that run side by side: once they are spent
    no trial starts, and the stage ends when those that run have ended. None: no limit."""
    resources: ResourcesConfig = ResourcesConfig()
    cluster: ClusterConfig = ClusterConfig()
    tracker: Annotated[str, AfterValidator(_known_tracker)] = "mlflow"
    """Where trials are shown as they run, a key of TRACKERS; the records and the report need no tracker."""
    attempts: PositiveInt = 2
    """Attempts per trial in one run of the stage before it is recorded as failed."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `base` updated by `over`: sections merge, everything else is replaced."""
    return deepcopy(overlaid(base, over))


def overlaid(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge without a copy: what only one of the two has is shared with it."""
    merged = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], Mapping) and isinstance(over[key], Mapping):
            merged[key] = overlaid(base[key], over[key])
    return merged
